//! Submits work and waits for it in slices, so that no lock of the driver is held for long and a lost device is noticed.

use super::Gpu;
use super::fault::Faults;
use super::signal::{CallbackGuard, Signal, SignalFuture};
use crate::error::{Error, Result, panic_words};
use crate::software::{Quirks, Spin, poll_lock_timeout};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use web_time::Instant;

/// The longest single wait inside the driver. OpenGL holds its context for that time, and other threads that need it panic in wgpu after
/// one to six seconds.
pub(super) const SLICE: Duration = Duration::from_millis(50);

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polled {
    /// Nothing is in flight.
    Idle,
    /// The awaited work is done.
    Done,
    /// The awaited work is not done yet.
    Busy,
}

/// Polls, and turns wgpu's panic on a lost device into an error.
///
/// One thread polls at a time: when two poll, wgpu 30 may find in one that the queue is empty although the fence it read a moment ago was
/// not that far, and panics. A callback that polls (its own thread holds the lock) goes ahead after a slice.
pub(super) fn poll(device: &wgpu::Device, faults: &Faults, how: wgpu::PollType) -> Result<Polled> {
    let start = Instant::now();
    let polled = poll_locked(device, faults, how)?;
    faults.speed.waited(start, polled != Polled::Busy, polled == Polled::Idle);
    Ok(polled)
}

fn poll_locked(device: &wgpu::Device, faults: &Faults, how: wgpu::PollType) -> Result<Polled> {
    let waits = matches!(how, wgpu::PollType::Wait { .. });
    let lock = if waits { faults.poll_lock.try_lock_for(SLICE) } else { faults.poll_lock.try_lock() };
    if lock.is_none() && !waits {
        // The thread that holds the lock runs the callbacks.
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
            let message = panic_words(&*panic);
            if message.starts_with("If the queue is empty") {
                // The application polls the same device: see above.
                return Ok(Polled::Idle);
            }
            if !message.starts_with("Error in Device::poll") {
                // Not wgpu's panic but one of an application's callback, which the application must see.
                resume_unwind(panic);
            }
            faults.lose(message.lines().next_back().map_or("", str::trim));
            faults.known().map(|()| Polled::Busy)
        }
    }
}

/// A wait in slices: spinning at first where that pays, then sleeping.
pub(super) struct Wait {
    spin: Option<Spin>,
    slice: Duration,
}

impl Wait {
    pub(super) fn new(quirks: &Quirks, slice: Duration) -> Self {
        Self { spin: Spin::new(quirks), slice }
    }

    /// Waits at most a slice for a submission, or for all of them.
    pub(super) fn slice(
        &self,
        device: &wgpu::Device,
        faults: &Faults,
        submission: Option<&wgpu::SubmissionIndex>,
    ) -> Result<Polled> {
        faults.known()?;
        let spin = self.spin.as_ref().and_then(|spin| Some((spin, spin.timeout()?)));
        let timeout = spin.map_or(self.slice, |(_, timeout)| timeout);
        let how = wgpu::PollType::Wait { submission_index: submission.cloned(), timeout: Some(timeout) };
        let polled = poll(device, faults, how)?;
        if let Some((spin, _)) = spin {
            spin.polled(polled == Polled::Busy);
        }
        Ok(polled)
    }
}

impl Gpu {
    /// Finishes encoders and submits them, in order, as one submission.
    ///
    /// # Errors
    /// [`Error::Validation`] if wgpu refuses one of them (then none of them runs); [`Error::OutOfMemory`];
    /// [`Error::DeviceLost`].
    pub fn submit(
        &self,
        what: &str,
        encoders: impl IntoIterator<Item = wgpu::CommandEncoder>,
    ) -> Result<wgpu::SubmissionIndex> {
        self.inner.faults.speed.others();
        self.submit_run(what, encoders)
    }

    /// As [`Gpu::submit`], for submissions of a run that [`Gpu::work`] began.
    pub(crate) fn submit_run(
        &self,
        what: &str,
        encoders: impl IntoIterator<Item = wgpu::CommandEncoder>,
    ) -> Result<wgpu::SubmissionIndex> {
        let start = Instant::now();
        // wgpu polls at the end of a submission: see `poll`.
        let lock = self.inner.faults.poll_lock.try_lock_for(poll_lock_timeout(&self.caps().quirks));
        let index =
            self.scoped(what, || self.queue().submit(encoders.into_iter().map(wgpu::CommandEncoder::finish)))?;
        drop(lock);
        // CPU drivers may compute during the submission.
        self.inner.faults.speed.waited(start, false, false);
        self.check()?;
        self.inner.submissions.fetch_add(1, Ordering::Relaxed);
        Ok(index)
    }

    /// A command encoder. If the device cannot create one, [`Gpu::submit`] and [`Gpu::check`] return the error.
    #[must_use]
    pub fn encoder(&self, label: &str) -> wgpu::CommandEncoder {
        self.noted(|| self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(label) }))
    }

    /// Runs due callbacks and frees memory, without waiting; true if nothing is in flight.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn poll(&self) -> Result<bool> {
        self.inner.faults.known()?;
        Ok(poll(self.device(), &self.inner.faults, wgpu::PollType::Poll)? == Polled::Idle)
    }

    /// Waits until all work submitted so far is done; the async form of [`Gpu::wait`].
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub async fn wait_async(&self) -> Result<()> {
        self.inner.faults.known()?;
        let signal = Arc::new(Signal::default());
        let guard = CallbackGuard::new(&signal);
        self.queue().on_submitted_work_done(move || guard.complete(true));
        // The state of the device decides, not the outcome.
        SignalFuture::new(self, &signal).await;
        self.check()
    }

    /// Waits for a submission, or for all of them. In a browser use [`Gpu::wait_async`].
    ///
    /// The thread sleeps. On a CPU driver it spins and yields for the first 20 ms, because waking a sleeping core takes longer than a small
    /// launch.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; in a browser [`Error::Input`].
    pub fn wait(&self, submission: Option<&wgpu::SubmissionIndex>) -> Result<()> {
        if cfg!(target_arch = "wasm32") {
            return Err(Error::input("wait", "a browser cannot block: await `wait_async`"));
        }
        let wait = Wait::new(&self.caps().quirks, SLICE);
        while wait.slice(self.device(), &self.inner.faults, submission)? == Polled::Busy {}
        self.check()
    }
}
