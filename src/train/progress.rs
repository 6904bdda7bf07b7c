//! What a trainer tells while it runs.

use super::routing::RoutingReport;
use crate::ops::StepReport;
use std::path::PathBuf;
use std::time::Duration;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step was done. Steps are reported in order, a few steps late, so that the GPU never waits.
    Step(StepEvent),
    /// The model was tried on held-out text.
    Evaluated {
        /// Steps done.
        step: u64,
        /// The mean loss.
        loss: f64,
        /// The best loss so far, this one included.
        best: f64,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: u64,
        /// Where it lies.
        path: PathBuf,
    },
}

/// A finished step.
#[derive(Clone, Debug)]
pub struct StepEvent {
    /// The step, from 1.
    pub step: u64,
    /// The last step of the run.
    pub steps: u64,
    /// Loss, norm, and whether the step was skipped.
    pub report: StepReport,
    /// What the routers did, of models that have some.
    pub routing: Option<RoutingReport>,
    /// The learning rate.
    pub learning_rate: f32,
    /// Tokens a second, averaged over the last steps.
    pub tokens_per_second: f64,
    /// The time that the rest of the run will take at this speed, evaluations not counted.
    pub remaining: Duration,
}

/// Who is told. Closures that take an event are such.
pub trait Progress {
    /// Something happened.
    fn event(&mut self, event: &Event);
}

impl<F: FnMut(&Event)> Progress for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

/// The speed of the last steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    seconds_per_step: f64,
    steps: u32,
}

impl Speed {
    /// Takes the time of one more step.
    pub(super) fn add(&mut self, seconds: f64) {
        // A tenth of the weight to the newest. The first step, which may wait for kernels to be compiled, is forgotten.
        let weight = if self.steps < 2 { 1.0 } else { 0.1 };
        self.seconds_per_step += weight * (seconds - self.seconds_per_step);
        self.steps = self.steps.saturating_add(1);
    }

    /// Tokens a second, if a step takes `tokens`.
    pub(super) fn rate(self, tokens: u64) -> f64 {
        if self.seconds_per_step > 0.0 { tokens as f64 / self.seconds_per_step } else { 0.0 }
    }

    /// The time that `steps` will take.
    pub(super) fn remaining(self, steps: u64) -> Duration {
        Duration::try_from_secs_f64(self.seconds_per_step * steps as f64).unwrap_or(Duration::MAX)
    }
}
