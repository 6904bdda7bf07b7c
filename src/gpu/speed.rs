//! The measured speed of a device.
//!
//! It is measured by the device's timestamps around the engine's passes ([`super::meter`]), or, without timestamps, by the clock while the
//! engine waits.

use super::AdapterClass;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use web_time::Instant;

/// The range of plausible speeds: the usual speed divided by `SLOWEST` to the usual speed times `FASTEST`.
const SLOWEST: f64 = 50.0;
const FASTEST: f64 = 1e4;
/// The most that one measurement may raise the speed: a wrong measurement does little harm, and a few right ones suffice.
const MAX_RAISE: f64 = 4.0;
/// The shortest work that counts as a measurement by timestamps, in seconds.
const SHORT: f64 = 2e-4;
/// The share of a span that the engine must have waited through.
const WATCHED: f64 = 0.75;

/// The assumed operations per second of a device of that class before a measurement: a tenth of the usual speed.
pub(crate) fn usual(class: AdapterClass) -> f64 {
    match class {
        AdapterClass::Gpu => 1e11,
        AdapterClass::Cpu => 2e9,
    }
}

/// The shortest work that counts as a measurement by the clock, in seconds: shorter work is mostly latency.
fn by_clock(class: AdapterClass) -> f64 {
    match class {
        AdapterClass::Gpu => 5e-3,
        AdapterClass::Cpu => 8e-2,
    }
}

/// The speed, clamped to the plausible range of the class.
pub(crate) fn bounded(class: AdapterClass, speed: f64) -> f64 {
    let usual = usual(class);
    if speed.is_nan() { usual } else { speed.clamp(usual / SLOWEST, usual * FASTEST) }
}

/// The speed estimate after work of `cost` operations took `seconds`. Work shorter than `least` does not count.
///
/// An average over a few measurements, because kernels differ in speed by factors. A slower measurement weighs more than a faster one,
/// because too long work is worse than too short work.
fn after(class: AdapterClass, known: Option<f64>, cost: f64, seconds: f64, least: f64) -> Option<f64> {
    if !(cost > 0.0 && cost.is_finite() && seconds >= least && seconds.is_finite()) {
        return known;
    }
    let speed = bounded(class, cost / seconds);
    let now = known.unwrap_or_else(|| usual(class));
    Some(match known {
        _ if speed > MAX_RAISE * now => MAX_RAISE * now,
        None => speed,
        Some(known) if speed < known => 0.5 * known + 0.5 * speed,
        Some(known) => 0.75 * known + 0.25 * speed,
    })
}

/// The speed of a device.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Floating-point operations per second, as the bits of an f64; 0 before the first measurement.
    known: AtomicU64,
    /// Set if the clock measures.
    clock: OnceLock<AdapterClass>,
    span: Mutex<Span>,
}

/// A span of time in which the device was busy with the engine's work. It begins when the queue was empty or when work was done.
#[derive(Debug, Default)]
struct Span {
    in_flight: usize,
    since: Option<Instant>,
    done: f64,
    /// The time that the engine waited through, up to `seen`.
    watched: Duration,
    seen: Option<Instant>,
    /// Whether other work may be in the queue.
    others: bool,
}

impl Speed {
    pub(super) fn known(&self) -> Option<f64> {
        Some(f64::from_bits(self.known.load(Ordering::Relaxed))).filter(|s| *s > 0.0)
    }

    pub(super) fn assume(&self, flops_per_second: f64) {
        self.known.store(flops_per_second.to_bits(), Ordering::Relaxed);
    }

    /// Updates the speed from work that took `seconds` by the device's timestamps, if that is consistent with the clock.
    ///
    /// `most` is the time by the clock, an upper bound.
    pub(super) fn timed(&self, class: AdapterClass, cost: f64, seconds: f64, most: f64) {
        // One percent tolerance, because two clocks differ slightly.
        if seconds > 1.01 * most {
            return log::debug!("timestamps say {seconds} s, the clock {most} s");
        }
        if let Some(speed) = after(class, self.known(), cost, seconds, SHORT) {
            self.assume(speed);
        }
    }

    /// Measures by the clock, for a device without timestamps that only the engine uses.
    pub(super) fn by_clock(&self, class: AdapterClass) {
        let _ = self.clock.set(class);
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that work other than a program's run is submitted.
    pub(super) fn others(&self) {
        if self.clock.get().is_some() {
            self.span().others();
        }
    }

    /// Records a time in the driver, and whether it ended because work was done or because nothing is in flight.
    pub(super) fn waited(&self, start: Instant, done: bool, idle: bool) {
        let Some(class) = self.clock.get() else { return };
        // A spinning thread lets the driver's threads run between two polls.
        let gap = Duration::from_secs_f64(by_clock(*class) / 4.0);
        let measurement = self.span().waited(start, Instant::now(), gap, done, idle);
        if let Some((cost, seconds)) = measurement
            && let Some(speed) = after(*class, self.known(), cost, seconds, by_clock(*class))
        {
            self.assume(speed);
        }
    }
}

impl Span {
    fn begin(&mut self, now: Instant) {
        if self.in_flight == 0 {
            *self = Self { since: (!self.others).then_some(now), others: self.others, ..Self::default() };
        }
        self.in_flight += 1;
    }

    fn others(&mut self) {
        (self.others, self.since) = (true, None);
    }

    /// The cost and the seconds of finished work, if the engine waited through most of the time. Pauses of up to `gap` count as waiting.
    fn waited(&mut self, start: Instant, end: Instant, gap: Duration, done: bool, idle: bool) -> Option<(f64, f64)> {
        self.others &= !idle;
        let since = self.since?;
        let seen = self.seen.unwrap_or(since).max(since);
        let from = if start.saturating_duration_since(seen) <= gap { seen } else { start };
        self.watched += end.saturating_duration_since(from);
        self.seen = Some(end);
        if !done || self.done == 0.0 {
            return None;
        }
        let (cost, seconds) = (self.done, end.saturating_duration_since(since).as_secs_f64());
        let watched = self.watched.as_secs_f64() >= WATCHED * seconds;
        // The next span begins where work was done.
        (self.since, self.done, self.watched) = (Some(end), 0.0, Duration::ZERO);
        watched.then_some((cost, seconds))
    }
}

/// A run in flight on a device whose speed the clock measures; dropping it ends the run.
#[derive(Debug)]
pub(crate) struct Work(Arc<super::fault::Faults>);

impl Work {
    /// Called before a run is submitted; `None` where timestamps measure.
    pub(super) fn begin(faults: &Arc<super::fault::Faults>) -> Option<Self> {
        faults.speed.clock.get()?;
        faults.speed.span().begin(Instant::now());
        Some(Self(faults.clone()))
    }

    /// Records that work of this many operations is done.
    pub(crate) fn done(self, cost: f64) {
        self.0.speed.span().done += cost;
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.speed.span().in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPU: AdapterClass = AdapterClass::Gpu;

    #[test]
    fn speed_is_measured_from_work_and_not_from_latency() {
        let learn = |known, cost, seconds| after(GPU, known, cost, seconds, 5e-3);
        // A few numbers, over as soon as they can be, before and after real work.
        assert_eq!((learn(None, 1e3, 1e-4), learn(Some(1e13), 1e3, 1e-4)), (None, Some(1e13)));
        // Real work: the first is believed, what follows shifts it, and what is slower more so.
        assert_eq!(learn(None, 2e10, 0.1), Some(2e11));
        assert_eq!(learn(Some(1e13), 1e11, 0.1), Some(0.5e13 + 0.5e12));
        assert_eq!(learn(Some(1e13), 2e12, 0.1), Some(0.75e13 + 0.25 * 2e13));
    }

    #[test]
    fn wrong_measurements_have_little_effect() {
        let learn = |known, cost, seconds| after(GPU, known, cost, seconds, SHORT);
        for nothing in [(1e9, 0.0), (1e9, -1.0), (1e9, f64::NAN), (1e9, f64::INFINITY), (0.0, 1.0), (f64::NAN, 1.0)] {
            assert_eq!(learn(Some(1e12), nothing.0, nothing.1), Some(1e12), "{nothing:?}");
        }
        // Too fast: four times as fast, no more, and never beyond what there is.
        assert_eq!(learn(Some(1e12), 1e15, 1e-3), Some(4e12));
        let mut speed = None;
        for _ in 0..100 {
            speed = learn(speed, 1e30, SHORT);
        }
        assert!(speed.is_some_and(|speed| (9e14..=1e15).contains(&speed)), "{speed:?}");
        // Too slow: never below a fiftieth of what it is taken for.
        for _ in 0..100 {
            speed = learn(speed, 1.0, 1e9);
        }
        assert!(speed.is_some_and(|speed| (2e9..2.1e9).contains(&speed)), "{speed:?}");
        assert_eq!([f64::NAN, -1.0, 1e300].map(|speed| bounded(GPU, speed)), [1e11, 2e9, 1e15]);
    }

    #[test]
    fn the_devices_time_is_within_the_clocks() {
        let speed = Speed::default();
        speed.timed(GPU, 1e10, 0.2, 0.1);
        assert_eq!(speed.known(), None, "longer than since it was submitted");
        speed.timed(GPU, 1e10, 0.1, 0.1);
        assert_eq!(speed.known(), Some(1e11));
    }

    #[test]
    fn the_clock_counts_what_the_engine_waited_through() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let (mut span, gap) = (Span::default(), Duration::from_millis(1));
        // Two runs, both waited for from soon after they were submitted.
        span.begin(at(0));
        span.begin(at(1));
        assert_eq!(span.waited(at(2), at(52), gap, false, false), None, "nothing is done");
        (span.done, span.in_flight) = (3.0, 1);
        assert_eq!(span.waited(at(52), at(100), gap, true, false), Some((3.0, 0.1)));
        (span.done, span.in_flight) = (4.0, 0);
        assert_eq!(span.waited(at(100), at(150), gap, true, true), Some((4.0, 0.05)), "from where the first was done");
        // No measurement for most of the time.
        span.begin(at(1000));
        (span.done, span.in_flight) = (5.0, 0);
        assert_eq!(span.waited(at(1900), at(2000), gap, true, true), None);
        // Many looks with short pauses are one wait.
        span.begin(at(2500));
        (0..9).for_each(|i| assert_eq!(span.waited(at(2501 + i), at(2501 + i), gap, false, false), None));
        (span.done, span.in_flight) = (6.0, 0);
        assert_eq!(span.waited(at(2510), at(2510), gap, true, false), Some((6.0, 0.01)));
        // Something else is in the queue, until it is empty.
        span.others();
        span.begin(at(3000));
        (span.done, span.in_flight) = (5.0, 0);
        assert_eq!(span.waited(at(3000), at(3100), gap, true, true), None);
        span.begin(at(4000));
        (span.done, span.in_flight) = (5.0, 0);
        assert_eq!(span.waited(at(4000), at(4100), gap, true, true), Some((5.0, 0.1)));
    }
}
