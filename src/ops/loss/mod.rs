//! Losses of logits.

pub(crate) mod cross_entropy;
pub(crate) mod linear_cross_entropy;

pub use cross_entropy::{CrossEntropyOptions, cross_entropy};
pub use linear_cross_entropy::linear_cross_entropy;
