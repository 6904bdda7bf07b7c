//! The block of decoders with rotary positions.

use super::attention::{Attention, KeyValues, Rotary, rotary_attention_keeping};
use super::dense::Style;
use super::experts::{ExpertMode, Experts, Gated, expert_feed_forward};
use super::feed_forward::gated_feed_forward;
use super::normalise::add_rms_norm;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::Activation;

/// The second half of a block.
#[derive(Clone, Copy, Debug)]
pub enum FeedForward<'a> {
    /// One gated network for all tokens.
    Dense {
        /// Its width.
        inner: usize,
        /// How its layers are made.
        style: Style,
    },
    /// Some of several for each token.
    Experts {
        /// The experts.
        experts: &'a Experts,
        /// How their matrices lie in GPU memory.
        storage: DType,
        /// Whether this is a step of training.
        training: bool,
        /// The seed of noise.
        seed: Option<Tensor>,
        /// How many tokens of each row are there, `(B)` u32; the others go to no expert. None: all.
        lengths: Option<Tensor>,
    },
}

/// What a Llama block is made of, but for its weights.
#[derive(Clone, Copy, Debug)]
pub struct RotaryBlock<'a> {
    /// The attention, with its positions and its memory.
    pub attention: Attention,
    /// The rotary positions.
    pub rotary: Rotary<'a>,
    /// How the projections in front of attention are made, and the one behind it.
    pub attention_styles: [Style; 2],
    /// The second half.
    pub feed_forward: FeedForward<'a>,
    /// The activation of its gate.
    pub activation: Activation,
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
}

/// What a block gives.
#[derive(Clone, Copy, Debug)]
pub struct BlockOutput {
    /// The stream.
    pub x: Tensor,
    /// The sum that is still to be added to it.
    pub added: Tensor,
    /// The keys and values that were attended to.
    pub kept: KeyValues,
    /// What the gate of its experts did, if it has some.
    pub gate: Option<Gated>,
}

impl RotaryBlock<'_> {
    /// The block of the weights under `prefix`, from the stream `x` and its norm.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(&self, g: &mut Graph, prefix: &str, x: Tensor, normed: Tensor) -> Result<BlockOutput> {
        let (mixed, kept) = g.scope("attention", |g| {
            let prefix = format!("{prefix}.self_attn");
            rotary_attention_keeping(g, &prefix, normed, &self.attention, &self.rotary, self.attention_styles)
        })?;
        let (x, normed) = add_rms_norm(g, &format!("{prefix}.post_attention_layernorm"), mixed, x, self.epsilon)?;
        let (added, gate) = g.scope("feed_forward", |g| match self.feed_forward {
            FeedForward::Dense { inner, style } => {
                let fed = gated_feed_forward(g, &format!("{prefix}.mlp"), normed, inner, self.activation, style)?;
                Ok((fed, None))
            }
            FeedForward::Experts { experts, storage, training, seed, lengths } => {
                let mode = ExpertMode { activation: self.activation, storage, training, seed, lengths };
                let (fed, gate) = expert_feed_forward(g, prefix, normed, experts, mode)?;
                Ok((fed, Some(gate)))
            }
        })?;
        Ok(BlockOutput { x, added, kept, gate })
    }
}
