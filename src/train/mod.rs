//! Training: the step as one recording, data, schedules, and a loop that can stop and resume.

#[cfg(feature = "files")]
mod checkpoint;
pub mod data;
mod health;
mod language;
mod layout;
mod loss;
mod objective;
mod packing;
mod progress;
mod reports;
mod routing;
mod run;
pub mod schedule;
mod sizes;
mod step;
mod trainer;
mod windows;

pub(crate) use data::fingerprint;
pub use data::{Batch, Batches, Corpus, DataState, IGNORED, check_tokens};
pub use language::{IDS, LABELS, LanguageModel, TREE_MASK, TreeLanguageModel, held_out};
pub use layout::Range;
pub use loss::label_weights;
pub use loss::{LabelMean, Labels, LossAndStats};
pub use objective::DROPOUT_SEED;
pub use objective::{BatchSource, Feeds, HeldOut, Objective};
pub use packing::PackedRows;
pub use packing::bucket;
pub use packing::pack;
pub(crate) use packing::{random_of_pass, shuffle};
pub use progress::{Event, Measure, Measured, Progress, StepEvent};
pub use routing::{
    ExpertSummary, GateReport, RecursionReport, RecursionSummary, RoutingLayout, RoutingReport, RoutingSummary,
};
pub use run::{Outcome, RunOptions, RunState};
pub use schedule::{Decay, Schedule};
pub use step::KEEP;
pub use step::{AdamOptions, LossScaling, Part, REPORT, SCALARS, STATISTICS, StepOptions, TrainStep};
pub use trainer::{Save, Trainer};
pub use windows::in_order;
pub use windows::in_order_after;
