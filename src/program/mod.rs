//! From a graph to the queue: record, plan, prepare, run.

mod program;
mod record;
mod weights;

pub use program::{Program, pack};
pub use record::{Recording, Slot, Source};
pub use weights::Weights;
