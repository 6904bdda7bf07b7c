//! Submitting work and waiting for it, in slices, so that no lock of the driver is held for long and a lost device is
//! noticed.

use super::Gpu;
use super::caps::AdapterClass;
use super::fault::Faults;
use super::signal::{Arrival, Landing, Signal};
use crate::error::{Error, Result};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The longest single wait inside the driver. OpenGL holds its context for that time, and other threads that want it
/// give up (with a panic of wgpu's) after one to six seconds.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// How long a wait for a driver on the CPU stays awake before it sleeps: a core that fell asleep takes longer to wake than a small
/// launch to run, and there are two such waits inside the driver for each of a step's launches.
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

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// Nothing is in flight.
    Idle,
    /// What was waited for is done.
    Done,
    /// Not yet.
    Busy,
}

/// Polls, turning the panic by which wgpu says "lost" into an error.
///
/// Threads do it in turns: of two that poll at once, wgpu 30 finds in one that the queue is empty though the fence it read
/// a moment ago was not that far, and panics. A callback that polls (its own thread has the turn) goes ahead after a slice.
pub(super) fn poll(device: &wgpu::Device, faults: &Faults, how: wgpu::PollType) -> Result<Polled> {
    let waits = matches!(how, wgpu::PollType::Wait { .. });
    let turn = if waits { faults.turn.try_lock_for(SLICE) } else { faults.turn.try_lock() };
    if turn.is_none() && !waits {
        // Who has the turn does what is due.
        return Ok(Polled::Busy);
    }
    match catch_unwind(AssertUnwindSafe(|| device.poll(how))) {
        Ok(Ok(wgpu::PollStatus::QueueEmpty)) => Ok(Polled::Idle),
        Ok(Ok(_)) => Ok(if waits { Polled::Done } else { Polled::Busy }),
        Ok(Err(wgpu::PollError::Timeout)) => Ok(Polled::Busy),
        Ok(Err(error @ wgpu::PollError::WrongSubmissionIndex(..))) => {
            faults.known()?;
            Err(Error::Validation { what: "waiting for a submission".into(), message: error.to_string() })
        }
        Err(panic) => {
            let fixed = panic.downcast_ref::<&str>().copied();
            let words = fixed.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or_default();
            if words.starts_with("If the queue is empty") {
                // The application polls the same device: see above.
                return Ok(Polled::Idle);
            }
            if !words.starts_with("Error in Device::poll") {
                // Not wgpu's: a callback of the application. It is theirs to see.
                resume_unwind(panic);
            }
            faults.lose(words.lines().next_back().map_or("", str::trim));
            faults.known().map(|()| Polled::Busy)
        }
    }
}

/// A wait in slices: awake at first where that pays, then asleep.
pub(super) struct Wait {
    start: Instant,
    awake: Duration,
    slice: Duration,
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

impl Wait {
    pub(super) fn new(class: AdapterClass, slice: Duration) -> Self {
        let awake = if class == AdapterClass::Cpu { AWAKE } else { Duration::ZERO };
        let nap = class == AdapterClass::Cpu && ALONE.swap(false, Ordering::Relaxed);
        Self { start: Instant::now(), awake, slice, watched: Cell::new(Watched::new(nap)) }
    }

    /// Waits for a submission, or for all of them, for a slice at most.
    pub(super) fn slice(
        &self,
        device: &wgpu::Device,
        faults: &Faults,
        submission: Option<&wgpu::SubmissionIndex>,
    ) -> Result<Polled> {
        faults.known()?;
        let awake = self.start.elapsed() < self.awake;
        let mut watched = self.watched.get();
        let timeout = match (awake, watched.nap) {
            (true, false) => Duration::ZERO,
            (true, true) => NAP,
            (false, _) => self.slice,
        };
        let how = wgpu::PollType::Wait { submission_index: submission.cloned(), timeout: Some(timeout) };
        let polled = poll(device, faults, how)?;
        if !awake {
            return Ok(polled);
        }
        if watched.nap {
            watched = Watched::new(false);
        } else if polled == Polled::Busy {
            // The driver's threads go first.
            let start = Instant::now();
            std::thread::yield_now();
            let time = start.elapsed();
            if time > QUICK {
                watched.shared += time;
            }
        }
        if let Some(alone) = watched.alone(if polled == Polled::Busy { WATCH } else { WATCH / 4 }) {
            ALONE.store(alone, Ordering::Relaxed);
            watched = Watched::new(alone);
        }
        self.watched.set(watched);
        Ok(polled)
    }
}

impl Gpu {
    /// Finishes encoders and submits them, in order, as one submission.
    ///
    /// # Errors
    /// [`Error::Validation`] if wgpu refuses one of them, and then none of their work happens; [`Error::OutOfMemory`];
    /// [`Error::DeviceLost`].
    pub fn submit(
        &self,
        what: &str,
        encoders: impl IntoIterator<Item = wgpu::CommandEncoder>,
    ) -> Result<wgpu::SubmissionIndex> {
        // wgpu polls at the end of a submission: see `poll`. Who sleeps in the driver, as all do on a GPU, keeps the turn for too long.
        let patience = if self.caps().class == AdapterClass::Cpu { WATCH } else { Duration::ZERO };
        let turn = self.inner.faults.turn.try_lock_for(patience);
        let index =
            self.scoped(what, || self.queue().submit(encoders.into_iter().map(wgpu::CommandEncoder::finish)))?;
        drop(turn);
        self.check()?;
        self.inner.submissions.fetch_add(1, Ordering::Relaxed);
        Ok(index)
    }

    /// An encoder. If the device cannot give one, [`Gpu::submit`] and [`Gpu::check`] say so.
    #[must_use]
    pub fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.noted(|| self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) }))
    }

    /// Does what is due (callbacks, freeing of memory) without waiting; true if nothing is in flight.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn poll(&self) -> Result<bool> {
        self.inner.faults.known()?;
        Ok(poll(self.device(), &self.inner.faults, wgpu::PollType::Poll)? == Polled::Idle)
    }

    /// Waits until all that was submitted so far is done; the async form of [`Gpu::wait`].
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub async fn wait_async(&self) -> Result<()> {
        self.inner.faults.known()?;
        let signal = Arc::new(Signal::default());
        let landing = Landing::new(&signal);
        self.queue().on_submitted_work_done(move || landing.landed(true));
        // Whatever the outcome, the device's word counts.
        Arrival::new(self, &signal).await;
        self.check()
    }

    /// Waits for a submission, or for all of them. A browser does not wait: there [`Gpu::wait_async`] does.
    ///
    /// The thread sleeps; for a driver that computes on the CPU it yields its core instead for the first 20 ms, because a core that
    /// sleeps would take longer to wake than a small launch to run.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(&self, submission: Option<&wgpu::SubmissionIndex>) -> Result<()> {
        let wait = Wait::new(self.caps().class, SLICE);
        while wait.slice(self.device(), &self.inner.faults, submission)? == Polled::Busy {}
        self.check()
    }
}
