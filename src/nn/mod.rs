//! Layers as plain functions over a graph. Parameters are named `PREFIX.weight` and `PREFIX.bias`.

mod attention;
mod block;
mod dense;
mod experts;
mod feed_forward;
mod normalise;
mod recursion;
mod statistics;

pub use attention::{
    Attention, Heads, KeyValues, Memory, Rotary, fused_attention, rotary_attention, rotary_attention_keeping,
};
pub use block::{BlockOutput, FeedForward, RotaryBlock};
pub use dense::{Style, activated_linear, dropout, embedding, linear};
pub use experts::{
    ExpertMode, ExpertNames, Experts, Gated, SharedExpert, expert_choice_feed_forward, expert_feed_forward,
};
pub use feed_forward::{feed_forward, gated_feed_forward};
pub use normalise::{add_layer_norm, add_rms_norm, layer_norm, rms_norm};
pub(crate) use recursion::CAPACITY_STEP;
pub use recursion::{ExpertChoice, Pass, Recursed, Router, RouterFunction, RouterKind, TokenChoice, Tokens};
pub use statistics::{Routed, RouterSums};
