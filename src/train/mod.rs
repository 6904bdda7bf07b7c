//! Training: the step as one recording, schedules, data, and a loop that can be stopped and resumed.

pub mod data;
mod layout;
pub mod schedule;
mod step;

pub use data::{Batch, Batches, Corpus, DataState, IGNORED, in_order};
pub use layout::{FlatLayout, Placed, Range, Shard};
pub use schedule::{Decay, Schedule};
pub use step::{AdamOptions, KEEP, LossScaling, Part, REPORT, SCALARS, STATE, StepOptions, TrainStep};
