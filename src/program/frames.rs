//! Runs and preparations within the frames of an application ([`Gpu::begin_frame`]).

use super::{Budget, Preparation, Program};
use crate::error::Result;
use crate::gpu::{Readback, Room};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

impl Program {
    /// The async form of [`Program::run_reading`], in frames if the application draws them ([`Gpu::begin_frame`](crate::Gpu::begin_frame)): encodes
    /// and submits as much of one run as fits each frame, and the readback of outputs with the last piece. Dropping the future gives up the rest, as
    /// dropping [`super::Pieces`] does.
    ///
    /// # Errors
    /// As [`Program::run_reading`]; [`crate::Error::Graph`] if another run of the program began before the last piece.
    ///
    /// ```
    /// # use std::{pin::pin, task::{Context, Poll, Waker}, time::Duration};
    /// # use wgformer::{Error, Gpu, Program};
    /// # fn frames(gpu: &Gpu, program: &Program, draw: impl Fn()) -> Result<Vec<u8>, Error> {
    /// let mut step = pin!(async { program.run_async(&["out"]).await?.remove(0).await });
    /// loop {
    ///     gpu.begin_frame(Duration::from_millis(4))?;
    ///     if let Poll::Ready(bytes) = step.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
    ///         return bytes;
    ///     }
    ///     draw();
    /// }
    /// # }
    /// ```
    pub async fn run_async(&self, outputs: &[&str]) -> Result<Vec<Readback>> {
        self.run_by(outputs, true).await
    }

    /// [`Program::run_async`], or [`Program::run_reading`] for forms that block: then the future is ready at once.
    pub(crate) async fn run_by(&self, outputs: &[&str], in_frames: bool) -> Result<Vec<Readback>> {
        let room = if in_frames { self.gpu.room().await? } else { None };
        let Some(mut room) = room else { return self.run_reading(outputs) };
        let places = outputs.iter().map(|name| self.output_buffer(name)).collect::<Result<Vec<_>>>()?;
        let mut pieces = self.pieces(Budget::lasting(&self.gpu, room.share))?;
        loop {
            let second = Budget::lasting(&self.gpu, Duration::from_secs(1)).submission;
            let mut encoder = self.gpu.encoder("a piece of a step");
            let cost = pieces.encode_within(&mut encoder, Budget::lasting(&self.gpu, room.left))?;
            let read = |&(buffer, offset, size): &(_, u64, u64)| self.gpu.readback(&mut encoder, buffer, offset, size);
            let readbacks: Vec<Readback> = match pieces.is_done() {
                true => places.iter().map(read).collect::<Result<_>>()?,
                false => Vec::new(),
            };
            let submission = self.gpu.submit("a piece of a step", [encoder])?;
            self.gpu.took(cost, second);
            if pieces.is_done() {
                return Ok(readbacks.into_iter().map(|readback| readback.after(&submission)).collect());
            }
            // Where no frames are drawn any more, the pieces follow one another.
            room = self.gpu.room().await?.unwrap_or(Room { left: room.share, ..room });
        }
    }
}

impl Preparation {
    /// The async form of [`Preparation::finish`]: compiles kernel by kernel, in frames if the application draws them
    /// ([`Gpu::begin_frame`](crate::Gpu::begin_frame)), and tells `progress` the share that is done. In between, other tasks of the executor run.
    /// Dropping the future gives up.
    ///
    /// # Errors
    /// As [`Preparation::finish`].
    pub async fn finish_async(mut self, mut progress: impl FnMut(f64)) -> Result<Program> {
        loop {
            let room = self.gpu().room().await?;
            let more = self.advance(Duration::ZERO)?;
            progress(self.progress());
            if !more {
                break;
            }
            if room.is_none() {
                yield_now().await;
            }
        }
        self.gpu().room().await?;
        self.finish()
    }
}

/// Lets other tasks of the executor run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
