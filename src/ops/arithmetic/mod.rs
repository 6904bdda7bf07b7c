//! Element by element, along rows, and sums.

pub(super) mod activation;
mod dropout;
pub(super) mod elementwise;
pub(crate) mod gated_add;
pub(crate) mod reduce;

pub use activation::{Activation, activation, gated};
pub use dropout::dropout;
pub use elementwise::{add_row, add_scalar, mul, mul_row, scale, scale_by, sub};
pub use gated_add::gated_add;
pub use reduce::{mean, mean_last, sum, sum_last, sum_rows};
