//! Handing a run to the queue: in as many submissions as the budget wants, or bit by bit for who may leave it.

use super::Program;
use super::launches::Launches;
use super::program::uploads_of;
use crate::error::Result;
use crate::gpu::{Readback, Uploads};
use std::cell::RefMut;

/// Whether a run ends behind that dispatch.
type Leave<'a> = &'a dyn Fn(usize) -> bool;

impl Program {
    /// Encodes and submits one run, and the readback of outputs with it: their values of this run arrive in the returned
    /// handles, even if others submit meanwhile. After an error the next run sends the inputs again.
    ///
    /// # Errors
    /// [`crate::Error::Input`] if there is no such output; [`crate::Error::OutOfMemory`]; those of [`Program::run`].
    pub fn run_reading(&self, outputs: &[&str]) -> Result<Vec<Readback>> {
        self.run_watched(outputs, None).map(Option::unwrap_or_default)
    }

    /// As [`Program::run_reading`], but a run longer than a moment goes to the device bit by bit, with two of its submissions in the queue,
    /// and behind each, `leave` is told which dispatch was the last in it. If it says true the rest is not run, and there is no result: states and
    /// outputs are then those of a run that ended in the middle, and the next run sends the inputs again.
    ///
    /// # Errors
    /// Those of [`Program::run_reading`].
    pub(crate) fn run_unless(&self, outputs: &[&str], leave: &dyn Fn(usize) -> bool) -> Result<Option<Vec<Readback>>> {
        self.run_watched(outputs, Some(leave))
    }

    fn run_watched(&self, outputs: &[&str], leave: Option<Leave<'_>>) -> Result<Option<Vec<Readback>>> {
        let outputs = outputs.iter().map(|name| self.output_buffer(name)).collect::<Result<Vec<_>>>()?;
        let running = self.running.lock();
        let launches = self.cut_next()?;
        let mut uploads = uploads_of(&running)?;
        let mut encoder = self.gpu.encoder("step");
        self.begin();
        let sent = self.send_inputs(&mut uploads, &mut encoder)?;
        let submitted = self.submit_all(&launches, encoder, &outputs, uploads, leave);
        if !matches!(submitted, Ok(Some(_))) {
            self.inputs().take_back(sent);
        }
        submitted
    }

    /// Submits a run in as many pieces as the budget wants; the uploads are kept from others until none can come in between.
    fn submit_all(
        &self,
        launches: &Launches,
        mut encoder: wgpu::CommandEncoder,
        outputs: &[(&wgpu::Buffer, u64, u64)],
        uploads: RefMut<'_, Uploads>,
        leave: Option<Leave<'_>>,
    ) -> Result<Option<Vec<Readback>>> {
        let mut ranges = match leave {
            None => self.submissions(launches),
            Some(_) => self.short_submissions(launches),
        };
        // One submission is measured now and then, each in its turn.
        let mut stopwatch = if ranges.is_empty() { None } else { self.gpu.stopwatch() };
        let measured = stopwatch.as_ref().map_or(0, |stopwatch| stopwatch.number as usize % ranges.len());
        // Outputs may be read of a program that computes nothing.
        let last = ranges.pop().unwrap_or(0..0);
        let work = self.gpu.work();
        let mut before = None;
        for (index, range) in ranges.iter().enumerate() {
            launches.encode(&mut encoder, range.clone(), stopwatch.take_if(|_| index == measured));
            let next = self.gpu.encoder("step");
            let submission = self.gpu.submit_run("a step", [std::mem::replace(&mut encoder, next)])?;
            if let Some(leave) = leave {
                if let Some(before) = before.replace(submission) {
                    self.gpu.wait(Some(&before))?;
                }
                if leave(launches.steps[range.end - 1].dispatch) {
                    return Ok(None);
                }
            }
        }
        launches.encode(&mut encoder, last, stopwatch);
        self.own.copy(&self.memory, &mut encoder);
        let readback = |&(buffer, offset, size): &(_, u64, u64)| self.gpu.readback(&mut encoder, buffer, offset, size);
        let readbacks: Vec<Readback> = outputs.iter().map(readback).collect::<Result<_>>()?;
        drop(uploads);
        let submission = self.gpu.submit_run("a step", [encoder])?;
        if let Some(work) = work {
            // The callback must not own the device, which owns the callback.
            let cost = launches.cost(0..launches.steps.len());
            self.gpu.queue().on_submitted_work_done(move || work.done(cost));
        }
        Ok(Some(readbacks.into_iter().map(|r| r.after(&submission)).collect()))
    }
}
