//! Layers as plain functions over a graph. Parameters are named `PREFIX.weight` and `PREFIX.bias`.

mod attention;
mod dense;
mod experts;
mod feed_forward;
mod normalise;

pub use attention::{Attention, Heads, Memory, Rotary, fused_attention, rotary_attention};
pub use dense::{Style, activated_linear, dropout, embedding, linear};
pub use experts::{ExpertNames, Experts, Gated, SharedExpert, expert_feed_forward};
pub use feed_forward::{feed_forward, gated_feed_forward};
pub use normalise::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
