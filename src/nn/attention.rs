//! Self-attention blocks of decoders: projections, rotary positions, caches.

use super::dense::{Style, linear};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::ops::{self, AttentionOptions, RopeOptions};

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; each serves `query / key_value` query heads.
    pub key_value: usize,
    /// The width of a head.
    pub width: usize,
}

/// Where a decoder's self-attention finds its keys and values.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    /// Whole sequences attend to themselves; keys whose mask `(B, T)` is 0 are padding.
    Whole {
        /// 1 on real tokens; none: all are real.
        key_mask: Option<Tensor>,
    },
    /// As `Whole`, from position 0 on, and keys and values are kept in caches of `capacity` positions.
    /// Rows may be padded on the right: no real token sees what stands behind it.
    Prefill {
        /// Positions of a cache.
        capacity: usize,
    },
    /// New tokens at their positions attend to all that the caches hold, and are kept there as well.
    Decode {
        /// Positions of a cache.
        capacity: usize,
        /// Positions in use per row `(B)`, the new tokens included.
        lengths: Tensor,
    },
}

/// Rotary positions: the table that [`ops::rope_table`] makes, once for all layers, and what it was made by.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// The table.
    pub table: Tensor,
    /// How heads are turned.
    pub options: &'a RopeOptions,
}

/// What the attention layers of a model have in common.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// The heads.
    pub heads: Heads,
    /// What scores are multiplied by; none: one over the root of the head width.
    pub scale: Option<f32>,
    /// The position of each token, `(B, T)`.
    pub positions: Tensor,
    /// Where keys and values are.
    pub memory: Memory,
    /// The spans of the tokens, `(B, T, 3)`, for sequences that attend to themselves.
    pub structure: Option<Tensor>,
}

impl Attention {
    /// Causal attention of `q (B, T, H, D)` over `k, v (B, T, Hkv, D)` and what is remembered under `prefix`.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn attend(&self, g: &mut Graph, prefix: &str, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
        let mut options = AttentionOptions { causal: true, scale: self.scale, ..Default::default() };
        if self.structure.is_some() && !matches!(self.memory, Memory::Whole { .. }) {
            let what = "a structure needs whole sequences: a token that is yet to come may head what is in the cache";
            return Err(Error::shape("attention", what));
        }
        match self.memory {
            Memory::Whole { key_mask } => {
                options.key_mask = key_mask;
                options.structure = self.structure;
                ops::attention(g, q, k, v, &options)
            }
            Memory::Prefill { capacity } => {
                self.remember(g, prefix, capacity, k, v)?;
                ops::attention(g, q, k, v, &options)
            }
            Memory::Decode { capacity, lengths } => {
                let (k, v) = self.remember(g, prefix, capacity, k, v)?;
                options.lengths = Some(lengths);
                options.query_positions = Some(self.positions);
                ops::attention(g, q, k, v, &options)
            }
        }
    }

    /// Writes keys and values to the caches and gives the caches.
    fn remember(&self, g: &mut Graph, prefix: &str, capacity: usize, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let shape = [g.shape(k).dims()[0], capacity, self.heads.key_value, self.heads.width];
        let mut write = |name: &str, new: Tensor| {
            let cache = g.state(&format!("{prefix}.{name}"), shape, DType::F32)?;
            ops::cache_write(g, cache, new, self.positions)
        };
        Ok((write("key_cache", k)?, write("value_cache", v)?))
    }

    /// `(B, T, heads · D)` as `(B, T, heads, D)`.
    fn by_head(&self, g: &mut Graph, x: Tensor, heads: usize) -> Result<Tensor> {
        let [batch, time, _] = g.shape(x).expect("attention")?;
        ops::reshape(g, x, [batch, time, heads, self.heads.width])
    }

    /// `(B, T, H, D)` as `(B, T, H · D)`.
    fn side_by_side(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let [batch, time, heads, width] = g.shape(x).expect("attention")?;
        ops::reshape(g, x, [batch, time, heads * width])
    }
}

/// Self-attention with one projection for queries, keys and values, as in GPT-2: the linear layers `c_attn` and
/// `c_proj` under `prefix`.
///
/// # Errors
/// Those of the ops.
pub fn fused_attention(g: &mut Graph, prefix: &str, x: Tensor, attention: &Attention, style: Style) -> Result<Tensor> {
    let width = g.shape(x).last();
    let Heads { query, key_value, width: head } = attention.heads;
    let parts = [query * head, key_value * head, key_value * head];
    let qkv = linear(g, &format!("{prefix}.c_attn"), x, parts.iter().sum(), style)?;
    let split = ops::split(g, qkv, 2, &parts)?;
    let q = attention.by_head(g, split[0], query)?;
    let k = attention.by_head(g, split[1], key_value)?;
    let v = attention.by_head(g, split[2], key_value)?;
    let mixed = attention.attend(g, prefix, q, k, v)?;
    let mixed = attention.side_by_side(g, mixed)?;
    linear(g, &format!("{prefix}.c_proj"), mixed, width, style)
}

/// Self-attention with rotary positions and, where there are fewer key heads, grouped queries, as in Llama: the linear
/// layers `q_proj`, `k_proj`, `v_proj` of one style and `o_proj` of another under `prefix`.
/// Su et al., arXiv 2104.09864; Ainslie et al., arXiv 2305.13245.
///
/// # Errors
/// Those of the ops.
pub fn rotary_attention(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    attention: &Attention,
    rotary: &Rotary<'_>,
    [style, output_style]: [Style; 2],
) -> Result<Tensor> {
    let width = g.shape(x).last();
    let heads = attention.heads;
    let mut project = |name: &str, count: usize| {
        let flat = linear(g, &format!("{prefix}.{name}"), x, count * heads.width, style)?;
        attention.by_head(g, flat, count)
    };
    let q = project("q_proj", heads.query)?;
    let k = project("k_proj", heads.key_value)?;
    let v = project("v_proj", heads.key_value)?;
    let q = ops::rope(g, q, attention.positions, rotary.table, rotary.options)?;
    let k = ops::rope(g, k, attention.positions, rotary.table, rotary.options)?;
    let mixed = attention.attend(g, prefix, q, k, v)?;
    let mixed = attention.side_by_side(g, mixed)?;
    linear(g, &format!("{prefix}.o_proj"), mixed, width, output_style)
}
