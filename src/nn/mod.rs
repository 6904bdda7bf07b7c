//! Layers over a graph. Parameters are named `PREFIX.weight` and `PREFIX.bias`. A model is data: a [`Stack`] of [`Block`]s.

mod attention;
mod balance;
mod block;
mod dense;
mod experts;
mod feed_forward;
mod flops;
mod inputs;
mod no_gradient;
mod norm;
mod pooled;
mod recursion;
mod relative;
mod router_stats;
mod stack;
mod switch;

pub(crate) use attention::is_cache;
pub use attention::{
    Attention, AttentionUse, Heads, KeyValues, KvSource, Latent, Mask, PositionTables, QkNorm, QkvNames, Ring,
    RotaryTable,
};
pub use balance::Balance;
pub use block::{Block, BlockOutput, BlockUse, NormNames};
pub use dense::DROPOUT_SEED;
pub use dense::{LinearConfig, dropout, embedding, linear, scaled};
pub(crate) use dense::{LinearUse, linear_with};
pub(crate) use experts::ExpertNames;
pub use experts::{ExpertMode, Experts, GateOutput, SharedExpert, expert_choice_feed_forward, expert_feed_forward};
pub use feed_forward::{FeedForward, FeedForwardUse};
pub(crate) use feed_forward::{GATED, gated_feed_forward};
pub use inputs::{Context, Documents, Hidden, TokenInputs};
pub use norm::{NormKind, NormOrder};
pub(crate) use pooled::{first_states, mean_states};
pub(crate) use recursion::CAPACITY_STEP;
pub use recursion::{
    ExpertChoiceRouting, Pass, Recursion, RecursionOutput, RecursionRouting, RecursionUse, Router, RouterFunction,
    RouterKind, Sharing, TokenChoiceRouting, Tokens,
};
pub use relative::{RelativeBias, RelativeBuckets};
pub use router_stats::{RouterDecision, RouterStats};
pub use stack::Stack;
pub(crate) use switch::SwitchExperts;
