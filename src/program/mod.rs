//! From a graph to the queue: record, plan, prepare, run.

mod cut;
mod frames;
mod inputs;
mod launches;
mod own;
mod pack;
mod pieces;
mod plan;
mod prepare;
mod profile;
mod program;
mod reach;
mod record;
mod recut;
mod report;
mod residents;
mod submit;
mod tune;
mod weights;

pub use cut::{Budget, cost, cut, submissions};
pub use own::OwnBuffers;
pub use pack::{pack, unpack};
pub use pieces::Pieces;
pub use plan::Plan;
pub use prepare::Preparation;
pub use profile::{KernelTime, LaunchTime, PartTime, Profile};
pub use program::Program;
pub use record::{Recording, Slot, Source};
pub use report::MemoryReport;
pub(crate) use report::human_count;
pub use residents::Residents;
use tune::tune;
pub use weights::{WeightBuffer, Weights};
