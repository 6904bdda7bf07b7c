//! Frames of an application: what the engine's async forms may take of each.

use super::{Gpu, Polling};
use crate::error::Result;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;
use web_time::Instant;

/// Submissions of pieces that are not done: more would only make the queue longer, and the application's own frames wait behind them.
const IN_FLIGHT: usize = 2;

/// The frame that is open, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Frames(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// `None` while the application draws no frames.
    open: Option<Open>,
    in_flight: usize,
    waiting: Vec<Waker>,
}

/// A frame.
#[derive(Clone, Copy, Debug)]
struct Open {
    share: Duration,
    until: Instant,
    /// What is left of the device's time.
    left: Duration,
}

/// What may be encoded now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The device's time that is left in the frame.
    pub(crate) left: Duration,
    /// The device's time of a whole frame.
    pub(crate) share: Duration,
}

impl Frames {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Wakers may call back.
        let waiting = std::mem::take(&mut self.state().waiting);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Counts a submission as done, also where its callback is dropped.
struct InFlight(Arc<Frames>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        drop(state);
        self.0.wake();
    }
}

impl Gpu {
    /// Begins a frame in which the engine's async forms may take `share`: so much of the device's time, by its measured speed, and so much of the
    /// time of the threads that poll them. They are [`crate::Program::run_async`], [`crate::program::Preparation::finish_async`],
    /// [`crate::generate::Generator::stream`], [`crate::generate::Scheduler::step_async`], [`crate::train::Trainer::step_async`] and
    /// [`crate::tasks::TextEmbedder::embed_async`].
    ///
    /// From the first call on they encode and submit their runs in pieces, as many a frame as fit, and go on in the next frame; the bits of results
    /// do not depend on it. Call it once a frame, then poll their futures; a future that waits for a frame is woken by the call. At most two pieces
    /// are in flight, so that a device that is slower than it was measured gets less. A launch is no longer than a share, a kernel's compilation
    /// may be. Blocking forms and [`crate::Program::run`] do as before.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`], so that a loss is told within a frame; an error that is pending ([`Gpu::check`]).
    pub fn begin_frame(&self, share: Duration) -> Result<()> {
        let until = Instant::now() + share;
        self.inner.frames.state().open = Some(Open { share, until, left: share });
        let checked = match self.inner.polling {
            Polling::Engine => self.poll().map(drop),
            Polling::Application => Ok(()),
        };
        self.inner.frames.wake();
        checked.and_then(|()| self.check())
    }

    /// Ends what [`Gpu::begin_frame`] began: the async forms submit whole runs.
    pub fn end_frames(&self) {
        self.inner.frames.state().open = None;
        self.inner.frames.wake();
    }

    /// Waits for room in a frame; `None` while the application draws no frames.
    ///
    /// # Errors
    /// [`crate::Error::DeviceLost`].
    pub(crate) async fn room(&self) -> Result<Option<Room>> {
        let frames = &self.inner.frames;
        poll_fn(|context| {
            if let Err(lost) = self.inner.faults.known() {
                return Poll::Ready(Err(lost));
            }
            let mut state = frames.state();
            let Some(Open { share, until, left }) = state.open else { return Poll::Ready(Ok(None)) };
            if state.in_flight < IN_FLIGHT && !left.is_zero() && Instant::now() < until {
                return Poll::Ready(Ok(Some(Room { left, share })));
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Takes the device's time for `operations` from the frame, for a piece that was just submitted.
    pub(crate) fn took(&self, operations: f64, flops_per_second: f64) {
        let mut state = self.inner.frames.state();
        if let Some(open) = &mut state.open {
            let time = Duration::try_from_secs_f64(operations / flops_per_second).unwrap_or(Duration::MAX);
            open.left = open.left.saturating_sub(time);
        }
        state.in_flight += 1;
        drop(state);
        let in_flight = InFlight(self.inner.frames.clone());
        self.queue().on_submitted_work_done(move || drop(in_flight));
    }
}
