//! The ops: one file each, with shape rule, gradient, f64 reference and launch.

mod activation;
mod attention;
mod cache;
pub(crate) mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod gather_words;
mod index;
mod layout;
pub(crate) mod linear_cross_entropy;
pub mod matmul;
pub(crate) mod norm;
mod optimizer;
mod position;
pub(crate) mod random;
pub(crate) mod reduce;
pub(crate) mod rows;
pub(crate) mod softmax;
mod sort;
pub(crate) mod transpose;

pub use crate::graph::Add;
pub use activation::{Activation, activation, gated};
pub use attention::{AttentionOptions, AttentionVariant, attention};
pub use cache::cache_write;
pub use cross_entropy::{CrossEntropyOptions, cross_entropy};
pub use dropout::dropout;
pub use elementwise::{add_row, add_scalar, mul, mul_row, scale, scale_by, sub};
pub use embedding::embedding;
pub use gather_words::gather_words;
pub use index::{gather_rows, scatter_rows, scatter_rows_sorted};
pub use layout::{concat, reshape, slice, split, zeros};
pub use linear_cross_entropy::linear_cross_entropy;
pub use matmul::{
    LinearOptions, Matmul, WeightLayout, linear, linear_fused, matmul, matmul_nt, matmul_tn, matmul_tn_rows,
};
pub use norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use optimizer::{
    AdamW, BLOCK, CastHalf, GlobalNorm, LossSeed, OptimizerControl, OptimizerScalars, Pack, StepReport, adamw,
    cast_half, global_norm, loss_seed, optimizer_control, pack,
};
pub use position::{RopeOptions, RopeScaling, rope, rope_table, sinusoidal_table, sinusoidal_table_halves};
pub use reduce::{mean, mean_last, sum, sum_last, sum_rows};
pub use softmax::{log_softmax, softmax};
pub use sort::{SortedIndex, sort_index};
pub use transpose::transpose;

use crate::error::Result;
use crate::graph::{Graph, Tensor};

/// `a + b` for tensors of one shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the types differ.
pub fn add(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.apply1(Add, &[a, b])
}
