//! What wgformer's interfaces for C and Python share: a model on a GPU that generates, embeds, gives logits and learns.
//!
//! Texts, numbers and options only, so that an interface has little more to do than to translate them.

mod forward;
mod generate;
mod kind;
mod session;
mod shared;
mod train;

pub use forward::{Forward, TokenBatch};
pub use generate::GenerateOptions;
pub use kind::Kind;
pub use session::{Info, LoadOptions, Session, dtype};
pub use shared::{Guard, Shared};
pub use train::{Step, TrainOptions};
