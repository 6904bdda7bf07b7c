//! Losses of logits.

mod cases;
mod cross_entropy;
mod linear_cross_entropy;

pub use cross_entropy::{CrossEntropyOptions, cross_entropy};
pub use linear_cross_entropy::linear_cross_entropy;

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    cases::cases()
}
