//! Training: the step as one recording, schedules, data, and a loop that can be stopped and resumed.

pub mod data;
mod layout;
pub mod schedule;
mod objective;
mod progress;
mod step;
mod trainer;

pub use data::{Batch, Batches, Corpus, DataState, IGNORED, in_order};
pub use layout::{FlatLayout, Placed, Range, Shard};
pub use schedule::{Decay, Schedule};
pub use objective::{Batches, DROPOUT_SEED, Feeds, Objective};
pub use progress::{Event, Progress, StepEvent};
pub use step::{AdamOptions, KEEP, LossScaling, Part, REPORT, SCALARS, STATE, StepOptions, TrainStep};
pub use trainer::{Outcome, RunOptions, RunState, Trainer};
