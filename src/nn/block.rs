//! The block of decoders with rotary positions.

use super::attention::{Attention, KeyValues, Rotary, rotary_attention_keeping};
use super::dense::Style;
use super::feed_forward::gated_feed_forward;
use super::normalise::add_rms_norm;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::Activation;

/// What a Llama block is made of, but for its weights.
#[derive(Clone, Copy, Debug)]
pub struct RotaryBlock<'a> {
    /// The attention, with its positions and its memory.
    pub attention: Attention,
    /// The rotary positions.
    pub rotary: Rotary<'a>,
    /// How the projections of attention are made.
    pub attention_style: Style,
    /// How the feed-forward network is made.
    pub inner_style: Style,
    /// The width of the feed-forward network.
    pub inner: usize,
    /// The activation of its gate.
    pub activation: Activation,
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
}

impl RotaryBlock<'_> {
    /// The block of the weights under `prefix`, from the stream `x` and its norm: the stream, the sum that is still to be
    /// added to it, and the keys and values that were attended to.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(&self, g: &mut Graph, prefix: &str, x: Tensor, normed: Tensor) -> Result<(Tensor, Tensor, KeyValues)> {
        let (mixed, kept) = g.scope("attention", |g| {
            let prefix = format!("{prefix}.self_attn");
            rotary_attention_keeping(g, &prefix, normed, &self.attention, &self.rotary, self.attention_style)
        })?;
        let (x, normed) = add_rms_norm(g, &format!("{prefix}.post_attention_layernorm"), mixed, x, self.epsilon)?;
        let fed = g.scope("feed_forward", |g| {
            gated_feed_forward(g, &format!("{prefix}.mlp"), normed, self.inner, self.activation, self.inner_style)
        })?;
        Ok((x, fed, kept))
    }
}
