//! Training: the step as one recording, schedules, data, and a loop that can be stopped and resumed.

mod layout;
mod step;

pub use layout::{FlatLayout, Placed, Range, Shard};
pub use step::{AdamOptions, KEEP, LossScaling, Part, REPORT, SCALARS, STATE, StepOptions, TrainStep};
