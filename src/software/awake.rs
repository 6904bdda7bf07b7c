//! Waits that stay awake, for drivers that compute on the CPU.

use super::Quirks;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use web_time::Instant;

/// How long a wait stays awake before it sleeps: a core that fell asleep takes longer to wake than a small launch to run, and there are
/// two such waits inside the driver for each of a step's launches.
const AWAKE: Duration = Duration::from_millis(20);

/// A waiting thread that is awake looks like work to the system, which then may leave two of the driver's workers on one core and the
/// waiting thread alone on another: every launch takes twice as long. A short sleep, in which a worker finds the core free, ends that.
const NAP: Duration = Duration::from_micros(20);

/// How long a thread watches whether anybody wants its core before it takes a nap.
const WATCH: Duration = Duration::from_micros(500);

/// A yield that took longer let somebody else run.
const QUICK: Duration = Duration::from_micros(5);

/// Whether the last wait had its core to itself: then the next one begins with a nap.
static ALONE: AtomicBool = AtomicBool::new(false);

/// How long a submission waits for a thread that polls. Who sleeps in the driver, as all do on a GPU, polls for too long.
pub(crate) fn patience(quirks: &Quirks) -> Duration {
    if quirks.awake { WATCH } else { Duration::ZERO }
}

/// A wait that is awake at first.
pub(crate) struct Awake {
    start: Instant,
    watched: Cell<Watched>,
}

/// What a thread that stays awake sees of its core.
#[derive(Clone, Copy)]
struct Watched {
    since: Instant,
    /// The time for which others ran.
    shared: Duration,
    /// Whether the next slice is a nap.
    nap: bool,
}

impl Watched {
    fn new(nap: bool) -> Self {
        Self { since: Instant::now(), shared: Duration::ZERO, nap }
    }

    /// Whether others hardly ran, if the time was long enough to tell.
    fn alone(&self, least: Duration) -> Option<bool> {
        let time = self.since.elapsed();
        (time >= least).then(|| 4 * self.shared < time)
    }
}

impl Awake {
    /// A wait, if the driver wants it awake.
    pub(crate) fn new(quirks: &Quirks) -> Option<Self> {
        let begin =
            || Self { start: Instant::now(), watched: Cell::new(Watched::new(ALONE.swap(false, Ordering::Relaxed))) };
        quirks.awake.then(begin)
    }

    /// How long the driver may sleep the next time that it is asked; `None` when the wait was awake for long enough.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let nap = if self.watched.get().nap { NAP } else { Duration::ZERO };
        (self.start.elapsed() < AWAKE).then_some(nap)
    }

    /// Hears that the driver was asked, and whether it is still busy.
    pub(crate) fn asked(&self, busy: bool) {
        let mut watched = self.watched.get();
        if watched.nap {
            watched = Watched::new(false);
        } else if busy {
            // The driver's threads go first.
            let start = Instant::now();
            std::thread::yield_now();
            let time = start.elapsed();
            if time > QUICK {
                watched.shared += time;
            }
        }
        if let Some(alone) = watched.alone(if busy { WATCH } else { WATCH / 4 }) {
            ALONE.store(alone, Ordering::Relaxed);
            watched = Watched::new(alone);
        }
        self.watched.set(watched);
    }
}
