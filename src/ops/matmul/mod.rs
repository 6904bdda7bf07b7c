//! Matrix products: plain, with either operand transposed, batched, and as the linear layer with its epilogue.

mod cases;
mod grouped;
mod launch;
mod matmul;
mod op;
mod problem;
mod split;
mod stored;
mod table;
mod variant;
mod windows;

pub(super) use grouped::{Grouped, Rows};
pub(super) use launch::Operands;
pub use matmul::{LinearOptions, WeightLayout, linear, linear_fused, matmul, matmul_nt, matmul_tn, matmul_tn_rows};
pub use op::Matmul;
pub use problem::{Form, Problem};
pub(super) use stored::weight_snippets;
pub use variant::Variant;

use crate::case::Case;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    cases::cases()
}
