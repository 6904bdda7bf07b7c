//! How fast a device gets through work, as it has shown.
//!
//! Two things tell: the device's own timestamps around the engine's passes ([`super::meter`]), and, where there are none, the clock, in
//! times that the engine waited through.

use super::AdapterClass;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use web_time::Instant;

/// How far below, and above, what it is taken for at first the speed of a device may be.
const SLOWEST: f64 = 50.0;
const FASTEST: f64 = 1e4;
/// How many times faster than known one lesson may make a device: a wrong one does no harm, and a few right ones are soon there.
const LEAP: f64 = 4.0;
/// The shortest work by timestamps that says anything, in seconds.
const SHORT: f64 = 2e-4;
/// The share of a time that the engine must have waited through.
const WATCHED: f64 = 0.75;

/// Operations a second that a device of that class is taken for until it has shown its speed: a tenth of what is usual.
pub(crate) fn usual(class: AdapterClass) -> f64 {
    match class {
        AdapterClass::Gpu => 1e11,
        AdapterClass::Cpu => 2e9,
    }
}

/// Seconds of the clock below which work was mostly waiting.
fn by_clock(class: AdapterClass) -> f64 {
    match class {
        AdapterClass::Gpu => 5e-3,
        AdapterClass::Cpu => 8e-2,
    }
}

/// The speed, if a device of that class may have it, else the nearest that it may.
pub(crate) fn bounded(class: AdapterClass, speed: f64) -> f64 {
    let usual = usual(class);
    if speed.is_nan() { usual } else { speed.clamp(usual / SLOWEST, usual * FASTEST) }
}

/// What the speed of a device is taken for after work of that cost took so many seconds; what is shorter than `least` says nothing.
///
/// An average over a few lessons, because kernels differ in speed by factors; what is too slow counts for more than what is too fast,
/// because work that is too long is worse than work that is too short.
fn after(class: AdapterClass, known: Option<f64>, cost: f64, seconds: f64, least: f64) -> Option<f64> {
    if !(cost > 0.0 && cost.is_finite() && seconds >= least && seconds.is_finite()) {
        return known;
    }
    let speed = bounded(class, cost / seconds);
    let now = known.unwrap_or_else(|| usual(class));
    Some(match known {
        _ if speed > LEAP * now => LEAP * now,
        None => speed,
        Some(known) if speed < known => 0.5 * known + 0.5 * speed,
        Some(known) => 0.75 * known + 0.25 * speed,
    })
}

/// The speed of a device.
#[derive(Debug, Default)]
pub(super) struct Speed {
    /// Floating-point operations per second, as the bits of an f64; 0 before the first lesson.
    known: AtomicU64,
    /// There if the clock is to tell.
    clock: OnceLock<AdapterClass>,
    span: Mutex<Span>,
}

/// A time in which the device was busy with the engine's work, beginning when the queue was empty or when something was done.
#[derive(Debug, Default)]
struct Span {
    in_flight: usize,
    since: Option<Instant>,
    done: f64,
    /// The part that the engine waited through, up to `seen`.
    watched: Duration,
    seen: Option<Instant>,
    /// Whether something else may be in the queue.
    others: bool,
}

impl Speed {
    pub(super) fn known(&self) -> Option<f64> {
        Some(f64::from_bits(self.known.load(Ordering::Relaxed))).filter(|s| *s > 0.0)
    }

    pub(super) fn assume(&self, flops_per_second: f64) {
        self.known.store(flops_per_second.to_bits(), Ordering::Relaxed);
    }

    /// Learns from work that took so many seconds of the device's own time, if both can be true.
    ///
    /// `most` is the time by the clock, into which the device's must fit.
    pub(super) fn timed(&self, class: AdapterClass, cost: f64, seconds: f64, most: f64) {
        // A hundredth, because two clocks are never quite alike.
        if seconds > 1.01 * most {
            return log::debug!("timestamps say {seconds} s, the clock {most} s");
        }
        if let Some(speed) = after(class, self.known(), cost, seconds, SHORT) {
            self.assume(speed);
        }
    }

    /// Has the clock tell, for a device without timestamps whose queue is the engine's alone.
    pub(super) fn by_clock(&self, class: AdapterClass) {
        let _ = self.clock.set(class);
    }

    fn span(&self) -> MutexGuard<'_, Span> {
        self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something else than a program's run is submitted.
    pub(super) fn others(&self) {
        if self.clock.get().is_some() {
            self.span().others();
        }
    }

    /// Notes that the engine was in the driver, and whether that ended because something was done, or because nothing is in flight.
    pub(super) fn waited(&self, start: Instant, done: bool, idle: bool) {
        let Some(class) = self.clock.get() else { return };
        // A thread that stays awake lets the driver's threads run between two polls.
        let gap = Duration::from_secs_f64(by_clock(*class) / 4.0);
        let lesson = self.span().waited(start, Instant::now(), gap, done, idle);
        if let Some((cost, seconds)) = lesson
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

    /// What was done, and in how many seconds, if something was and the engine waited through most of it; pauses of up to `gap` are part
    /// of a wait.
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
        // The next one begins where something was done.
        (self.since, self.done, self.watched) = (Some(end), 0.0, Duration::ZERO);
        watched.then_some((cost, seconds))
    }
}

/// A run in flight, for a device whose speed the clock tells; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Work(Arc<super::fault::Faults>);

impl Work {
    /// To be called before the run is handed to the device; nothing where timestamps tell.
    pub(super) fn begin(faults: &Arc<super::fault::Faults>) -> Option<Self> {
        faults.speed.clock.get()?;
        faults.speed.span().begin(Instant::now());
        Some(Self(faults.clone()))
    }

    /// Notes that work of this many operations is done.
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
    fn speed_is_learnt_from_work_and_not_from_waiting() {
        let learn = |known, cost, seconds| after(GPU, known, cost, seconds, 5e-3);
        // A few numbers, over as soon as they can be, before and after real work.
        assert_eq!((learn(None, 1e3, 1e-4), learn(Some(1e13), 1e3, 1e-4)), (None, Some(1e13)));
        // Real work: the first is believed, what follows shifts it, and what is slower more so.
        assert_eq!(learn(None, 2e10, 0.1), Some(2e11));
        assert_eq!(learn(Some(1e13), 1e11, 0.1), Some(0.5e13 + 0.5e12));
        assert_eq!(learn(Some(1e13), 2e12, 0.1), Some(0.75e13 + 0.25 * 2e13));
    }

    #[test]
    fn wrong_lessons_are_of_little_effect() {
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
    fn the_devices_time_fits_into_the_clocks() {
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
        // Nobody looked for most of the time.
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
