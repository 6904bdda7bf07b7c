//! The ops: one file each, with shape rule, gradient, f64 reference and launch.

mod activation;
mod attention;
mod balance;
mod cache;
mod capacity;
pub(crate) mod cross_entropy;
mod detach;
mod dropout;
mod elementwise;
mod embedding;
mod expert_choice;
mod experts;
pub(crate) mod gate;
pub(crate) mod gated_add;
mod gather_words;
mod index;
mod layout;
pub(crate) mod linear_cross_entropy;
mod mask_rows;
pub mod matmul;
mod noise;
pub(crate) mod norm;
mod optimizer;
mod position;
pub(crate) mod random;
pub(crate) mod reduce;
mod router;
mod router_sums;
mod row_entropy;
pub(crate) mod rows;
mod select;
mod slots;
pub(crate) mod softmax;
mod sort;
pub(crate) mod transpose;
mod unique;
pub(crate) mod warm_capacity;

pub use crate::graph::Add;
pub use activation::{Activation, activation, gated};
pub use attention::{AttentionDropout, AttentionOptions, AttentionVariant, attention};
pub use balance::{load_balance_loss, load_counts, router_z_loss, routing_entropy, update_bias};
pub use cache::cache_write;
pub use capacity::limit_capacity;
pub use cross_entropy::{CrossEntropyOptions, cross_entropy};
pub use detach::detach;
pub use dropout::dropout;
pub use elementwise::{add_row, add_scalar, mul, mul_row, scale, scale_by, sub};
pub use embedding::embedding;
pub use expert_choice::{ExpertChoice, expert_choice, expert_choice_by_scores, expert_choice_feed_forward};
pub use experts::{ExpertWeights, GroupedLinear, Routing, expert_feed_forward, expert_output, grouped_linear, route};
pub use gate::{Gate, GateGroups, GateOptions, GateScores, top_k_gate};
pub use gated_add::gated_add;
pub use gather_words::gather_words;
pub use index::{gather_rows, scatter_rows, scatter_rows_sorted};
pub use layout::{concat, reshape, slice, split, zeros};
pub use linear_cross_entropy::linear_cross_entropy;
pub use mask_rows::{fill_rows, mask_rows};
pub use matmul::{
    LinearOptions, Matmul, WeightLayout, linear, linear_fused, matmul, matmul_nt, matmul_tn, matmul_tn_rows,
};
pub use noise::noisy_logits;
pub use norm::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub use optimizer::{
    AdamW, BLOCK, CastHalf, GlobalNorm, LossSeed, OptimizerControl, OptimizerScalars, Pack, StepReport, adamw,
    cast_half, global_norm, loss_seed, optimizer_control, pack,
};
pub use position::{RopeOptions, RopeScaling, rope, rope_table, sinusoidal_table, sinusoidal_table_halves};
pub use reduce::{mean, mean_last, sum, sum_last, sum_rows};
pub use router::{RouterLoss, argmax_rows, balance_loss, balance_loss_and_shares, pick, selection_loss};
pub use router_sums::{BEHIND_LOADS, Sent, router_sums};
pub use row_entropy::{binary_entropy, row_entropy};
pub use select::{Choice, NONE, SelectOptions, Selected, select};
pub use slots::{Claimed, claim_slots};
pub use softmax::{log_softmax, softmax};
pub use sort::{SortedIndex, sort_index};
pub use transpose::transpose;
pub use unique::{gather_unique, place_rows};
pub use warm_capacity::{WarmCapacity, warm_capacity};

use crate::error::Result;
use crate::graph::{Graph, Tensor};

/// `a + b` for tensors of one shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the types differ.
pub fn add(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Add, &[a, b])
}
