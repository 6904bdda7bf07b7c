//! From a graph to the queue: record, plan, prepare, run.

mod cut;
mod inputs;
mod launches;
mod pack;
mod pieces;
mod plan;
mod profile;
mod program;
mod reach;
mod record;
mod recut;
mod report;
mod submit;
mod tune;
mod weights;

pub use cut::{Budget, cost, cut, submissions};
pub use pack::{pack, unpack};
pub use pieces::Pieces;
pub use plan::Plan;
pub use profile::{KernelTime, LaunchTime, PartTime, Profile};
pub use program::Program;
pub use record::{Recording, Slot, Source};
pub use report::MemoryReport;
pub(crate) use report::human_count;
use tune::tune;
pub use weights::{WeightBuffer, Weights};
