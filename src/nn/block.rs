//! A block of a transformer as data: attention and feed-forward network, each with its norm and its residual sum.

use super::attention::{Attention, AttentionUse, KeyValues};
use super::dense::{dropout, scaled};
use super::experts::GateOutput;
use super::feed_forward::{FeedForward, FeedForwardUse};
use super::inputs::Context;
use super::norm::{NormKind, NormOrder};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops;

/// Salts of dropout in cross-attention and inside feed-forward networks.
const CROSS_SALT: u32 = 1 << 28;
const ACTIVATION_SALT: u32 = 1 << 29;

/// Names of the norms of one part of a block, after the block's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormNames {
    /// The only norm, or the one before the part if there are two. Where norms stand in front of parts, an empty name is none.
    pub norm: &'static str,
    /// The one behind the part, with [`NormOrder::Both`].
    pub post_norm: &'static str,
}

impl From<&'static str> for NormNames {
    fn from(norm: &'static str) -> Self {
        Self { norm, post_norm: "" }
    }
}

/// A block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The prefix of the names of its weights.
    pub prefix: String,
    /// Its norms.
    pub norm: NormKind,
    /// The order of norms and residual sums.
    pub order: NormOrder,
    /// The norms of attention.
    pub attention_norm: NormNames,
    /// Attention.
    pub attention: Attention,
    /// Attention to what an encoder gave, with its norms.
    pub cross: Option<(NormNames, Attention)>,
    /// The norms of the feed-forward network.
    pub feed_forward_norm: NormNames,
    /// The feed-forward network.
    pub feed_forward: FeedForward,
    /// Both read the same states, and one sum takes what both give: `x + attention(norm(x)) + feed_forward(norm′(x))`.
    pub parallel: bool,
    /// The rate of dropout on the output of each part.
    pub dropout: f32,
    /// The rate of dropout inside the feed-forward network.
    pub activation_dropout: f32,
    /// The factor of what each part adds to the residual stream.
    pub residual_scale: f32,
}

/// The inputs of a block besides the states.
#[derive(Clone, Copy, Debug)]
pub struct BlockUse<'a> {
    /// The inputs of attention.
    pub attention: AttentionUse<'a>,
    /// The keys and values of cross-attention.
    pub context: Option<Context>,
    /// Whether this is a step of training.
    pub training: bool,
    /// The mask of experts, `(B, T)` u32, 0 on padding. None: all tokens, or those that the lengths of attention count.
    pub mask: Option<Tensor>,
}

/// The outputs of a block.
#[derive(Clone, Copy, Debug)]
pub struct BlockOutput {
    /// The states, `(B, T, C)`.
    pub x: Tensor,
    /// The keys and values that were attended to.
    pub kv: KeyValues,
    /// The output of the gate, if the block has experts.
    pub gate: Option<GateOutput>,
}

impl Block {
    /// Whether training drops anything in it, or makes noise.
    #[must_use]
    pub fn has_dropout(&self) -> bool {
        let attentions = [Some(&self.attention), self.cross.as_ref().map(|(_, cross)| cross)];
        let of_attention = |attention: &Attention| [attention.dropout, self.after(attention)];
        let mut rates = attentions.into_iter().flatten().flat_map(of_attention);
        let noisy = match &self.feed_forward {
            FeedForward::Experts { experts, .. } => experts.noisy || experts.jitter > 0.0,
            FeedForward::Switch(experts) => experts.jitter > 0.0,
            FeedForward::Plain { .. } | FeedForward::Gated { .. } => false,
        };
        noisy || self.dropout > 0.0 || self.activation_dropout > 0.0 || rates.any(|rate| rate > 0.0)
    }

    /// The rate of dropout on the result of attention.
    fn after(&self, attention: &Attention) -> f32 {
        attention.output_dropout.unwrap_or(self.dropout)
    }

    /// The block of states `x (B, T, C)`.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(&self, g: &mut Graph, x: Tensor, with: &BlockUse<'_>) -> Result<BlockOutput> {
        let (seed, salt) = (with.attention.seed, 2 * with.attention.salt + 1);
        let attend = |g: &mut Graph, x: Tensor| {
            let (y, kv) = self.attention.run(g, &self.prefix, x, &with.attention)?;
            Ok((dropout(g, y, self.after(&self.attention), seed, salt)?, kv))
        };
        let feed = |g: &mut Graph, x: Tensor| {
            let (lengths, dropout_salt) = (with.attention.lengths, ACTIVATION_SALT + salt);
            let (training, mask, rate) = (with.training, with.mask, self.activation_dropout);
            let told = FeedForwardUse { training, seed, lengths, mask, dropout: rate, dropout_salt };
            let (y, gate) = self.feed_forward.run(g, &self.prefix, x, told)?;
            Ok((dropout(g, y, self.dropout, seed, salt + 1)?, gate))
        };
        let (attn_out, kv) = self.branch(g, "attention", self.attention_norm, x, attend)?;
        if self.parallel {
            let (ff_out, gate) = self.branch(g, "feed_forward", self.feed_forward_norm, x, feed)?;
            let y = ops::add(g, attn_out, ff_out)?;
            return Ok(BlockOutput { x: self.sum(g, self.feed_forward_norm, y, x)?, kv, gate });
        }
        let mut x = self.sum(g, self.attention_norm, attn_out, x)?;
        if let Some((norm, cross)) = &self.cross {
            let what = "this decoder reads what an encoder gave, and was given nothing: TokenInputs::with_context";
            let missing = || crate::Error::Graph(what.into());
            let context = with.context.ok_or_else(missing)?;
            let attention = AttentionUse { salt: CROSS_SALT + with.attention.salt, ..with.attention };
            let attend = |g: &mut Graph, x: Tensor| {
                let y = cross.cross(g, &self.prefix, x, context, &attention)?;
                Ok((dropout(g, y, self.after(cross), seed, CROSS_SALT + salt)?, ()))
            };
            let (y, ()) = self.branch(g, "cross_attention", *norm, x, attend)?;
            x = self.sum(g, *norm, y, x)?;
        }
        let (y, gate) = self.branch(g, "feed_forward", self.feed_forward_norm, x, feed)?;
        Ok(BlockOutput { x: self.sum(g, self.feed_forward_norm, y, x)?, kv, gate })
    }

    /// The branch of a part, with the norms before and after it.
    fn branch<T>(
        &self,
        g: &mut Graph,
        scope: &str,
        names: NormNames,
        x: Tensor,
        part: impl FnOnce(&mut Graph, Tensor) -> Result<(Tensor, T)>,
    ) -> Result<(Tensor, T)> {
        let x = match self.order {
            NormOrder::Pre if names.norm.is_empty() => x,
            NormOrder::Pre | NormOrder::Both => self.norm.apply(g, &format!("{}.{}", self.prefix, names.norm), x)?,
            NormOrder::Post => x,
        };
        let (y, more) = g.scope(scope, |g| part(g, x))?;
        let y = match self.order {
            NormOrder::Both => self.norm.apply(g, &format!("{}.{}", self.prefix, names.post_norm), y)?,
            NormOrder::Pre | NormOrder::Post => y,
        };
        Ok((y, more))
    }

    /// The residual sum, and the norm behind it if the order has one there. Fusion makes one kernel of a sum and the norm that reads it.
    fn sum(&self, g: &mut Graph, names: NormNames, y: Tensor, x: Tensor) -> Result<Tensor> {
        let y = scaled(g, y, self.residual_scale)?;
        let sum = ops::add(g, y, x)?;
        match self.order {
            NormOrder::Post => self.norm.apply(g, &format!("{}.{}", self.prefix, names.norm), sum),
            NormOrder::Pre | NormOrder::Both => Ok(sum),
        }
    }
}
