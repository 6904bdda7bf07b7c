//! The ops, in folders; their kernels lie in folders of the same names.
//!
//! An op is one file: formula, shape rule, gradient, f64 reference, launch, and the conformance cases that check them, in a file beside it
//! where they are long. The list of a folder, its `mod.rs`, is the one place that names the op: as a module, with what it gives to users,
//! and with its cases.

mod arithmetic;
mod attention;
mod experts;
mod index;
mod layout;
mod long_cases;
mod loss;
pub mod matmul;
mod norm;
mod optimizer;
mod random;
mod recursion;
mod rows;

pub use arithmetic::*;
pub use attention::*;
pub use experts::*;
pub use index::*;
pub use layout::*;
pub use loss::*;
pub use matmul::{
    LinearOptions, Matmul, WeightLayout, linear, linear_fused, matmul, matmul_nt, matmul_tn, matmul_tn_rows,
};
pub use norm::*;
pub use optimizer::*;
pub use recursion::*;

use crate::case::Case;

/// The conformance cases of every op.
pub(crate) fn cases() -> Vec<Case> {
    let folders = [
        arithmetic::cases(),
        attention::cases(),
        experts::cases(),
        index::cases(),
        layout::cases(),
        loss::cases(),
        matmul::cases(),
        norm::cases(),
        optimizer::cases(),
        recursion::cases(),
        long_cases::cases(),
    ];
    folders.into_iter().flatten().collect()
}
