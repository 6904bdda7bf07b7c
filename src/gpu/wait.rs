//! Submitting work and waiting for it, in slices, so that no lock of the driver is held for long and a lost device is
//! noticed.

use super::Gpu;
use super::fault::Faults;
use super::signal::{Arrival, Landing, Signal};
use crate::error::{Error, Result};
use crate::software::{Awake, Quirks, patience};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use web_time::Instant;

/// The longest single wait inside the driver. OpenGL holds its context for that time, and other threads that want it
/// give up (with a panic of wgpu's) after one to six seconds.
pub(super) const SLICE: Duration = Duration::from_millis(50);

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
    let start = Instant::now();
    let polled = poll_in_turn(device, faults, how)?;
    faults.speed.waited(start, polled != Polled::Busy, polled == Polled::Idle);
    Ok(polled)
}

fn poll_in_turn(device: &wgpu::Device, faults: &Faults, how: wgpu::PollType) -> Result<Polled> {
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
    awake: Option<Awake>,
    slice: Duration,
}

impl Wait {
    pub(super) fn new(quirks: &Quirks, slice: Duration) -> Self {
        Self { awake: Awake::new(quirks), slice }
    }

    /// Waits for a submission, or for all of them, for a slice at most.
    pub(super) fn slice(
        &self,
        device: &wgpu::Device,
        faults: &Faults,
        submission: Option<&wgpu::SubmissionIndex>,
    ) -> Result<Polled> {
        faults.known()?;
        let awake = self.awake.as_ref().and_then(|awake| Some((awake, awake.timeout()?)));
        let timeout = awake.map_or(self.slice, |(_, timeout)| timeout);
        let how = wgpu::PollType::Wait { submission_index: submission.cloned(), timeout: Some(timeout) };
        let polled = poll(device, faults, how)?;
        if let Some((awake, _)) = awake {
            awake.asked(polled == Polled::Busy);
        }
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
        self.inner.faults.speed.others();
        self.submit_run(what, encoders)
    }

    /// As [`Gpu::submit`], for what belongs to a run that [`Gpu::work`] knows of.
    pub(crate) fn submit_run(
        &self,
        what: &str,
        encoders: impl IntoIterator<Item = wgpu::CommandEncoder>,
    ) -> Result<wgpu::SubmissionIndex> {
        let start = Instant::now();
        // wgpu polls at the end of a submission: see `poll`.
        let turn = self.inner.faults.turn.try_lock_for(patience(&self.caps().quirks));
        let index =
            self.scoped(what, || self.queue().submit(encoders.into_iter().map(wgpu::CommandEncoder::finish)))?;
        drop(turn);
        // Drivers that compute on the CPU may do so here.
        self.inner.faults.speed.waited(start, false, false);
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
    /// [`Error::DeviceLost`]; in a browser [`Error::Input`].
    pub fn wait(&self, submission: Option<&wgpu::SubmissionIndex>) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            return Err(Error::input("wait", "a browser cannot be waited for: await `wait_async`"));
        }
        let wait = Wait::new(&self.caps().quirks, SLICE);
        while wait.slice(self.device(), &self.inner.faults, submission)? == Polled::Busy {}
        self.check()
    }
}
