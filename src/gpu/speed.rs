//! How fast a device gets through work, as it has shown.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use web_time::Instant;

/// The speed of a device, and what it has done since it was idle.
///
/// Several runs may be in flight at once, and callbacks may come late and together. All that was done since the queue was last empty,
/// by the time since then, is at most too slow: that errs to the safe side.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    /// Floating-point operations per second, as the bits of an f64; 0 before the first measurement.
    known: AtomicU64,
    busy: Mutex<Busy>,
}

#[derive(Debug, Default)]
struct Busy {
    in_flight: usize,
    since: Option<Instant>,
    done: f64,
}

impl Speed {
    pub(crate) fn known(&self) -> Option<f64> {
        Some(f64::from_bits(self.known.load(Ordering::Relaxed))).filter(|s| *s > 0.0)
    }

    pub(crate) fn learn(&self, flops_per_second: f64) {
        self.known.store(flops_per_second.to_bits(), Ordering::Relaxed);
    }

    fn busy(&self) -> MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before work is handed to the device.
    pub(super) fn begin(speed: &Arc<Self>) -> Work {
        let mut busy = speed.busy();
        if busy.in_flight == 0 {
            (busy.since, busy.done) = (Some(Instant::now()), 0.0);
        }
        busy.in_flight += 1;
        drop(busy);
        Work { speed: speed.clone() }
    }
}

/// Work in flight; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    speed: Arc<Speed>,
}

impl Work {
    /// Notes that work of this many operations is done; gives all that was done since the device became busy, and the seconds.
    pub(crate) fn done(&self, cost: f64) -> (f64, f64) {
        let mut busy = self.speed.busy();
        busy.done += cost;
        (busy.done, busy.since.map_or(0.0, |since| since.elapsed().as_secs_f64()))
    }

    pub(crate) fn speed(&self) -> &Speed {
        &self.speed
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.speed.busy().in_flight -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_from_when_the_device_became_busy() {
        let speed = Arc::new(Speed::default());
        let (first, second) = (Speed::begin(&speed), Speed::begin(&speed));
        let (done, early) = first.done(3.0);
        assert_eq!(done, 3.0);
        drop(first);
        let (done, late) = second.done(4.0);
        assert_eq!(done, 7.0, "both, in the time for both");
        assert!(late >= early);
        drop(second);
        assert_eq!(Speed::begin(&speed).done(5.0).0, 5.0, "it was idle");
    }
}
