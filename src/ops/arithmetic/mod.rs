//! Elementwise ops, ops along rows, and sums.

pub(super) mod activation;
mod clip;
mod dropout;
pub(super) mod elementwise;
mod gated_add;
mod jitter;
pub(super) mod reduce;

pub use crate::graph::Add;
pub use activation::{Activation, activation, gated};
pub use clip::clip;
pub use dropout::dropout;
pub use elementwise::{add, add_row, add_scalar, mul, mul_row, scale, scale_by, sub};
pub use gated_add::gated_add;
pub use jitter::jitter;
pub use reduce::{mean, mean_last, sum, sum_last, sum_rows};

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [
        activation::cases(),
        clip::cases(),
        dropout::cases(),
        elementwise::cases(),
        gated_add::cases(),
        jitter::cases(),
        reduce::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
