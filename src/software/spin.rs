//! Waits that spin, for CPU drivers.

use super::Quirks;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use web_time::Instant;

/// How long a wait spins before it sleeps: waking a sleeping core takes longer than a small launch, and the driver waits twice for each
/// launch of a step.
const SPIN_FOR: Duration = Duration::from_millis(20);

/// The scheduler takes a spinning thread for work, and may leave two of the driver's workers on one core while the spinning thread has
/// another to itself: every launch takes twice as long. A short sleep, in which a worker finds the core free, ends that.
const YIELD_NAP: Duration = Duration::from_micros(20);

/// How long a thread observes whether others use its core before it naps.
const WATCH: Duration = Duration::from_micros(500);

/// A longer yield means that another thread ran.
const QUICK: Duration = Duration::from_micros(5);

/// Whether the last wait had its core to itself: then the next wait begins with a nap.
static CORE_UNSHARED: AtomicBool = AtomicBool::new(false);

/// How long a submission waits for the poll lock. Blocking waits, as on a GPU, hold it too long to wait for it.
pub(crate) fn poll_lock_timeout(quirks: &Quirks) -> Duration {
    if quirks.spin { WATCH } else { Duration::ZERO }
}

/// A wait that spins at first.
pub(crate) struct Spin {
    start: Instant,
    core: Cell<CoreUse>,
}

/// How a spinning thread shares its core.
#[derive(Clone, Copy)]
struct CoreUse {
    since: Instant,
    /// The time that other threads ran.
    shared: Duration,
    /// Whether the next slice is a nap.
    nap: bool,
}

impl CoreUse {
    fn new(nap: bool) -> Self {
        Self { since: Instant::now(), shared: Duration::ZERO, nap }
    }

    /// Whether other threads hardly ran; `None` if the time was too short to tell.
    fn unshared(&self, least: Duration) -> Option<bool> {
        let time = self.since.elapsed();
        (time >= least).then(|| 4 * self.shared < time)
    }
}

impl Spin {
    /// A wait, if the driver is faster with it.
    pub(crate) fn new(quirks: &Quirks) -> Option<Self> {
        let begin = || Self {
            start: Instant::now(),
            core: Cell::new(CoreUse::new(CORE_UNSHARED.swap(false, Ordering::Relaxed))),
        };
        quirks.spin.then(begin)
    }

    /// The timeout of the next poll; `None` when the wait has spun long enough.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let nap = if self.core.get().nap { YIELD_NAP } else { Duration::ZERO };
        (self.start.elapsed() < SPIN_FOR).then_some(nap)
    }

    /// Records a poll, and whether the driver is still busy.
    pub(crate) fn polled(&self, busy: bool) {
        let mut core = self.core.get();
        if core.nap {
            core = CoreUse::new(false);
        } else if busy {
            // The driver's threads go first.
            let start = Instant::now();
            std::thread::yield_now();
            let time = start.elapsed();
            if time > QUICK {
                core.shared += time;
            }
        }
        if let Some(unshared) = core.unshared(if busy { WATCH } else { WATCH / 4 }) {
            CORE_UNSHARED.store(unshared, Ordering::Relaxed);
            core = CoreUse::new(unshared);
        }
        self.core.set(core);
    }
}
