//! The ops: one file each, with shape rule, gradient, f64 reference and launch. Their kernels lie in folders of the same names.

mod arithmetic;
mod attention;
mod experts;
mod index;
mod layout;
mod loss;
pub mod matmul;
pub(crate) mod norm;
mod optimizer;
pub(crate) mod random;
mod recursion;
pub(crate) mod rows;

pub use crate::graph::Add;
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

use crate::error::Result;
use crate::graph::{Graph, Tensor};

/// `a + b` for tensors of one shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the types differ.
pub fn add(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Add, &[a, b])
}
