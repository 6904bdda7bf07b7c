//! Reports of steps, which arrive a few steps later.

use super::progress::{Event, Progress, StepEvent};
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::ops::StepReport;
use web_time::Instant;

/// A step whose report is in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) step: u64,
    pub(super) learning_rate: f32,
    pub(super) tokens: u64,
    pub(super) positions: u64,
}

impl Trainer {
    /// Passes reports that have arrived to `progress`, and waits for the oldest while more than `in_flight` are missing.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if the loss is not finite, or the gradients for too many consecutive steps. Such steps did not change the weights.
    /// [`Error::DeviceLost`].
    pub fn reports(&mut self, in_flight: usize, progress: &mut dyn Progress) -> Result<()> {
        while let Some((oldest, mut report)) = self.pending.pop_front() {
            let bytes = if self.pending.len() + 1 > in_flight {
                report.wait()?
            } else {
                match report.try_get()? {
                    Some(bytes) => bytes,
                    None => {
                        self.pending.push_front((oldest, report));
                        return Ok(());
                    }
                }
            };
            self.reported(&oldest, &bytes, progress)?;
        }
        Ok(())
    }

    /// The async form of [`Trainer::reports`].
    ///
    /// # Errors
    /// As [`Trainer::reports`].
    pub async fn reports_async(&mut self, in_flight: usize, progress: &mut dyn Progress) -> Result<()> {
        while self.pending.len() > in_flight {
            let Some((oldest, report)) = self.pending.pop_front() else { break };
            let bytes = report.await?;
            self.reported(&oldest, &bytes, progress)?;
        }
        Ok(())
    }

    fn reported(&mut self, step: &Pending, report: &[u8], progress: &mut dyn Progress) -> Result<()> {
        let control: Vec<f32> = bytemuck::pod_collect_to_vec(report);
        let report =
            StepReport::from_slice(&control).ok_or_else(|| Error::Graph("the report of a step is too short".into()))?;
        let now = Instant::now();
        if let Some(before) = self.mark.replace(now) {
            self.speed.add(now.duration_since(before).as_secs_f64());
        }
        progress.event(&Event::Step(StepEvent {
            step: step.step,
            steps: self.run.steps,
            report,
            routing: self.routing.read(&control),
            learning_rate: step.learning_rate,
            padding: step.positions.saturating_sub(step.tokens) as f64 / step.positions.max(1) as f64,
            tokens_per_second: self.speed.rate(step.tokens),
            remaining: self.speed.remaining(self.run.steps.saturating_sub(step.step)),
        }));
        self.check_finite(step.step, &report)
    }
}
