//! The options, the state and the outcome of a training run.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

/// The options of a training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[serde(default)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct RunOptions {
    /// Steps of the whole run.
    pub steps: u64,
    /// The seed of dropout.
    pub seed: u64,
    /// Steps between two evaluations; 0 for none.
    pub evaluate_every: u64,
    /// Ends the run after this many evaluations without a better measure, or loss.
    pub patience: Option<u32>,
    /// Steps between two checkpoints; 0 saves only one at the end.
    pub save_every: u64,
    /// The most steps in flight before the trainer waits for the oldest report.
    pub in_flight: usize,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { steps: 1000, seed: 0, evaluate_every: 0, patience: None, save_every: 0, in_flight: 3 }
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// The measure, or the held-out loss, did not improve.
    StoppedEarly,
    /// The stop flag was set.
    Interrupted,
}

/// The state of a run: the content of a checkpoint besides tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The number of steps done.
    pub step: u64,
    /// The best held-out loss; `None` before the first evaluation.
    pub best_loss: Option<f64>,
    /// The best measure, if evaluations take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_measure: Option<f64>,
    /// Evaluations since then.
    pub without_progress: u32,
}
