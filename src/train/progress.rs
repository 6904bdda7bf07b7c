//! Progress events of a trainer.

use super::routing::RoutingReport;
use super::trainer::Trainer;
use crate::error::Result;
use crate::ops::StepReport;
use std::path::PathBuf;
use std::time::Duration;

/// An event of a training run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step is done. Steps are reported in order, a few steps late, so that the GPU never waits.
    Step(StepEvent),
    /// The model was evaluated on held-out text.
    Evaluated {
        /// The number of steps done.
        step: u64,
        /// The mean loss.
        loss: f64,
        /// The best loss so far, including this one.
        best: f64,
        /// What the run's measure gave, if it has one.
        measured: Option<Measured>,
        /// Whether it is the best evaluation so far.
        better: bool,
    },
    /// A checkpoint was written.
    Saved {
        /// The number of steps done.
        step: u64,
        /// Its path.
        path: PathBuf,
    },
}

/// A finished step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepEvent {
    /// The step, from 1.
    pub step: u64,
    /// The last step of the run.
    pub steps: u64,
    /// Loss, norm, and whether the step was skipped.
    pub report: StepReport,
    /// Statistics of routers, for models that have some.
    pub routing: Option<RoutingReport>,
    /// The learning rate.
    pub learning_rate: f32,
    /// The share of padding among the positions of the step's batches.
    pub padding: f64,
    /// Tokens per second, averaged over the last steps, without padding.
    pub tokens_per_second: f64,
    /// The remaining time at this speed, without evaluations.
    pub remaining: Duration,
}

/// What a measure gave.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Its value, of which more is better.
    pub value: f64,
    /// Further values by name.
    pub others: Vec<(String, f64)>,
}

/// What a run's evaluations take besides the loss of held-out data.
pub trait Measure {
    /// Measures the weights of a trainer.
    ///
    /// # Errors
    /// Those of what is run.
    fn measure(&mut self, trainer: &Trainer) -> Result<Measured>;

    /// Keeps the weights, which are the best so far.
    ///
    /// # Errors
    /// Those of saving them.
    fn keep(&mut self, _trainer: &Trainer) -> Result<()> {
        Ok(())
    }
}

/// A receiver of events, such as a closure.
pub trait Progress {
    /// Receives an event.
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
    /// Adds the time of one more step.
    pub(super) fn add(&mut self, seconds: f64) {
        // The newest step has a tenth of the weight. The first step is dropped, since it may include the compilation of kernels.
        let weight = if self.steps < 2 { 1.0 } else { 0.1 };
        self.seconds_per_step += weight * (seconds - self.seconds_per_step);
        self.steps = self.steps.saturating_add(1);
    }

    /// Tokens per second for steps of `tokens`.
    pub(super) fn rate(self, tokens: u64) -> f64 {
        if self.seconds_per_step > 0.0 { tokens as f64 / self.seconds_per_step } else { 0.0 }
    }

    /// The time of `steps`.
    pub(super) fn remaining(self, steps: u64) -> Duration {
        Duration::try_from_secs_f64(self.seconds_per_step * steps as f64).unwrap_or(Duration::MAX)
    }
}
