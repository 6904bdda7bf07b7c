//! Self-attention blocks of decoders: projections, rotary positions, caches.

use super::dense::{Style, linear};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::ops::{self, AttentionDropout, AttentionOptions, RopeOptions};

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
        /// Real tokens of each row, `(B)`.
        lengths: Tensor,
    },
    /// New tokens at their positions attend to all that the caches hold, and are kept there as well.
    Decode {
        /// Positions of a cache.
        capacity: usize,
        /// Positions in use per row `(B)`, the new tokens included.
        lengths: Tensor,
    },
    /// Some tokens of each row side by side, in the order of their positions: they attend to each other only.
    Compact {
        /// How many are in use, `(B)`; none: all.
        lengths: Option<Tensor>,
    },
    /// As `Compact`, and keys and values are kept side by side as well, in caches that belong to one turn of a layer that is
    /// used several times.
    Slots {
        /// The turn.
        turn: usize,
        /// Slots of a cache.
        capacity: usize,
        /// The slot of each new token, `(B, T)`.
        slots: Tensor,
        /// Slots in use per row `(B)`, the new tokens included.
        lengths: Tensor,
        /// Nothing has been kept before the new tokens.
        fresh: bool,
    },
    /// Tokens attend to keys and values that are there already, those up to their own position.
    Shared(KeyValues),
}

/// Keys and values that queries attended to.
#[derive(Clone, Copy, Debug)]
pub struct KeyValues {
    /// The keys, `(B, S, H, D)`.
    pub keys: Tensor,
    /// The values, of the same shape.
    pub values: Tensor,
    /// How many are in use, `(B)`; none: all.
    pub lengths: Option<Tensor>,
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
    /// What of the probabilities is dropped.
    pub dropout: Option<AttentionDropout>,
}

impl Attention {
    /// Causal attention of `q (B, T, H, D)` over `k, v (B, T, Hkv, D)` and what is remembered under `prefix`.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn attend(&self, g: &mut Graph, prefix: &str, q: Tensor, k: Tensor, v: Tensor) -> Result<Tensor> {
        self.attend_keeping(g, prefix, q, k, v).map(|(mixed, _)| mixed)
    }

    /// [`Attention::attend`], and the keys and values that were attended to.
    fn attend_keeping(
        &self,
        g: &mut Graph,
        prefix: &str,
        q: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<(Tensor, KeyValues)> {
        let dropout = self.dropout;
        let mut options = AttentionOptions { causal: true, scale: self.scale, dropout, ..Default::default() };
        let mut found = KeyValues { keys: k, values: v, lengths: None };
        let whole = matches!(self.memory, Memory::Whole { .. } | Memory::Compact { .. });
        if self.structure.is_some() && !whole {
            let what = "a structure needs whole sequences: a token that is yet to come may head what is in the cache";
            return Err(Error::shape("attention", what));
        }
        options.structure = self.structure;
        match self.memory {
            Memory::Whole { key_mask } => options.key_mask = key_mask,
            Memory::Prefill { capacity, .. } => {
                self.remember(g, prefix, capacity, self.positions, k, v)?;
            }
            Memory::Decode { capacity, lengths } => {
                (found.keys, found.values) = self.remember(g, prefix, capacity, self.positions, k, v)?;
                found.lengths = Some(lengths);
                options.query_positions = Some(self.positions);
            }
            Memory::Compact { lengths } => found.lengths = lengths,
            Memory::Slots { turn, capacity, slots, lengths, fresh } => {
                let prefix = if turn == 0 { prefix.to_owned() } else { format!("{prefix}.turns.{turn}") };
                let kept = self.remember(g, &prefix, capacity, slots, k, v)?;
                found.lengths = Some(lengths);
                if !fresh {
                    (found.keys, found.values) = kept;
                    options.query_positions = Some(slots);
                }
            }
            Memory::Shared(kept) => {
                found = kept;
                options.query_positions = Some(self.positions);
            }
        }
        options.lengths = found.lengths;
        Ok((ops::attention(g, q, found.keys, found.values, &options)?, found))
    }

    /// Writes keys and values to the caches, at these positions, and gives the caches.
    fn remember(
        &self,
        g: &mut Graph,
        prefix: &str,
        capacity: usize,
        positions: Tensor,
        k: Tensor,
        v: Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let [batch, ..] = g.shape(k).expect::<4>("attention, k (B, T, H, D)")?;
        let shape = [batch, capacity, self.heads.key_value, self.heads.width];
        let keys = g.state(&format!("{prefix}.key_cache"), shape, DType::F32)?;
        let values = g.state(&format!("{prefix}.value_cache"), shape, DType::F32)?;
        ops::cache_write(g, [keys, values], [k, v], positions)
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
    // What no number holds is refused as the size of a weight.
    let parts = [query, key_value, key_value].map(|count| count.saturating_mul(head));
    let all = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(*part));
    let qkv = linear(g, &format!("{prefix}.c_attn"), x, all, style)?;
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
    styles: [Style; 2],
) -> Result<Tensor> {
    rotary_attention_keeping(g, prefix, x, attention, rotary, styles).map(|(mixed, _)| mixed)
}

/// [`rotary_attention`], and the keys and values that were attended to. With [`Memory::Shared`] none are projected.
///
/// # Errors
/// Those of the ops.
pub fn rotary_attention_keeping(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    attention: &Attention,
    rotary: &Rotary<'_>,
    [style, output_style]: [Style; 2],
) -> Result<(Tensor, KeyValues)> {
    let width = g.shape(x).last();
    let heads = attention.heads;
    let project = |g: &mut Graph, name: &str, count: usize| {
        let flat = linear(g, &format!("{prefix}.{name}"), x, count.saturating_mul(heads.width), style)?;
        attention.by_head(g, flat, count)
    };
    let turn = |g: &mut Graph, x: Tensor| ops::rope(g, x, attention.positions, rotary.table, rotary.options);
    let q = project(g, "q_proj", heads.query)?;
    let (k, v) = match attention.memory {
        Memory::Shared(kept) => (kept.keys, kept.values),
        _ => (project(g, "k_proj", heads.key_value)?, project(g, "v_proj", heads.key_value)?),
    };
    let q = turn(g, q)?;
    let k = if let Memory::Shared(_) = attention.memory { k } else { turn(g, k)? };
    let (mixed, kept) = attention.attend_keeping(g, prefix, q, k, v)?;
    let mixed = attention.side_by_side(g, mixed)?;
    Ok((linear(g, &format!("{prefix}.o_proj"), mixed, width, output_style)?, kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::WeightLayout;

    const STYLE: Style = Style { layout: WeightLayout::InOut, storage: DType::F32, bias: false, lengths: None };

    fn attention(positions: Tensor, query: usize, memory: Memory) -> Attention {
        let heads = Heads { query, key_value: 1, width: 4 };
        Attention { heads, scale: None, positions, memory, structure: None, dropout: None }
    }

    #[test]
    fn more_heads_than_a_number_holds_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [1, 2, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        let options = RopeOptions::default();
        let rotary = Rotary { table: ops::rope_table(&mut g, 4, &options)?, options: &options };
        let attention = attention(positions, usize::MAX, Memory::Whole { key_mask: None });
        let refused = [
            fused_attention(&mut g, "fused", x, &attention, STYLE).unwrap_err(),
            rotary_attention(&mut g, "rotary", x, &attention, &rotary, [STYLE; 2]).unwrap_err(),
        ];
        for error in refused {
            assert!(error.to_string().contains("more elements than any device holds"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn keys_without_axes_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let scalar = g.input("scalar", Vec::new(), DType::F32)?;
        let [positions, lengths] = [g.input("positions", [1, 2], DType::U32)?, g.input("lengths", [1], DType::U32)?];
        let attention = attention(positions, 2, Memory::Prefill { capacity: 8, lengths });
        let message = attention.attend(&mut g, "layer", scalar, scalar, scalar).unwrap_err().to_string();
        assert!(message.contains("expected 4 axes, got shape []"), "{message}");
        Ok(())
    }
}
