//! Attention as data: projections, positions, mask, and where keys and values are.

mod cross;

use super::dense::{LinearConfig, LinearUse, linear_with};
use super::relative::RelativeBias;
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
    /// Features of a head.
    pub head_dim: usize,
}

/// Where self-attention finds its keys and values.
#[derive(Clone, Copy, Debug)]
pub enum KvSource {
    /// Whole sequences attend to themselves; keys whose mask `(B, T)` is 0 are padding.
    Uncached {
        /// 1 on real tokens; none: all are real.
        key_mask: Option<Tensor>,
    },
    /// As `Uncached`, from position 0 on, and keys and values are caches in caches of `capacity` positions.
    /// Rows may be padded on the right: no real token sees what stands behind it.
    Prefill {
        /// Positions of a cache.
        capacity: usize,
        /// Real tokens of each row, `(B)`.
        lengths: Tensor,
    },
    /// New tokens at their positions attend to all that the caches hold, and are caches there as well.
    Decode {
        /// Positions of a cache.
        capacity: usize,
        /// Positions in use per row `(B)`, the new tokens included.
        lengths: Tensor,
    },
    /// Some tokens of each row side by side, in the order of their positions: they attend to each other only.
    Packed {
        /// How many are in use, `(B)`; none: all.
        lengths: Option<Tensor>,
    },
    /// As `Packed`, and keys and values are caches side by side as well, in caches that belong to one recursion of a layer that is
    /// used several times.
    Slots {
        /// The recursion.
        recursion: usize,
        /// Slots of a cache.
        capacity: usize,
        /// The slot of each new token, `(B, T)`.
        slots: Tensor,
        /// Slots in use per row `(B)`, the new tokens included.
        lengths: Tensor,
        /// Nothing has been caches before the new tokens.
        cache_is_empty: bool,
    },
    /// Tokens attend to keys and values that are there already, those up to their own position.
    Reuse(KeyValues),
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

/// Which keys a query sees, beside those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All: encoders.
    Bidirectional,
    /// Those at or before its own position: decoders.
    Causal,
}

/// What the projections to queries, keys and values are called behind the module's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkvNames {
    /// A layer each.
    Separate([&'static str; 3]),
    /// One layer, its outputs side by side.
    Fused(&'static str),
}

/// An attention layer, of tokens to each other or to those of an encoder. Names stand behind the block's prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The module.
    pub module: &'static str,
    /// The projections in it to queries, keys and values.
    pub qkv: QkvNames,
    /// The projection in it behind attention.
    pub output: &'static str,
    /// How the projections to queries, keys and values are made.
    pub linear: LinearConfig,
    /// How the projection behind attention is made.
    pub output_linear: LinearConfig,
    /// The heads.
    pub heads: Heads,
    /// What scores are multiplied by; none: one over the root of `head_dim`.
    pub scale: Option<f32>,
    /// Which keys a query sees.
    pub mask: Mask,
    /// How queries and keys are rotated by their positions, if they are.
    pub rotary: Option<RopeOptions>,
    /// What scores get by the distance of query and key, if they do. Not those of tokens to an encoder's.
    pub relative: Option<RelativeBias>,
    /// How far from itself a token sees, itself included where it sees none behind it: see [`AttentionOptions::window`]. Of tokens
    /// picked out of a sequence those that were picked count. Tokens see all of an encoder's.
    pub window: Option<usize>,
    /// What scores stay within: see [`AttentionOptions::soft_cap`].
    pub soft_cap: Option<f32>,
    /// The rate of dropout on probabilities.
    pub dropout: f32,
}

/// The table of rotary positions of all layers that turn alike.
#[derive(Clone, Debug)]
pub struct RotaryTable {
    /// How they turn.
    pub options: RopeOptions,
    /// Features of a head.
    pub head_dim: usize,
    /// What [`ops::rope_table`] made of it.
    pub table: Tensor,
}

/// What the layers of a stack have in common of positions.
#[derive(Clone, Debug, Default)]
pub struct PositionTables {
    /// The tables of rotary positions.
    pub rotary: Vec<RotaryTable>,
    /// Relative biases, of so many heads, `(H, T, T)` or `(B, H, 1, capacity)`.
    pub relative: Vec<(RelativeBias, usize, Tensor)>,
}

/// What an attention layer is told of a pass.
#[derive(Clone, Copy, Debug)]
pub struct AttentionUse<'a> {
    /// The position of each token, `(B, T)`.
    pub positions: Tensor,
    /// Where keys and values are.
    pub kv: KvSource,
    /// The spans of the tokens, `(B, T, 3)`, for sequences that attend to themselves.
    pub structure: Option<Tensor>,
    /// How many tokens of each row are there, `(B)`, where products should know. None: all.
    pub lengths: Option<Tensor>,
    /// The seed of dropout, `(2)` u32; none: nothing is dropped.
    pub seed: Option<Tensor>,
    /// Tells the layers of a model apart where something is dropped.
    pub salt: u32,
    /// The tables of positions, with those of this layer.
    pub tables: &'a PositionTables,
}

impl Attention {
    /// Features of all query heads, and of all key heads.
    #[must_use]
    pub fn features(&self) -> [usize; 2] {
        let Heads { query, key_value, head_dim } = self.heads;
        // What no number holds is refused as the size of a weight.
        [query.saturating_mul(head_dim), key_value.saturating_mul(head_dim)]
    }

    /// Attention of `x (B, T, C)` under `prefix`, and the keys and values that were attended to. With [`KvSource::Reuse`] none
    /// are projected.
    ///
    /// Rotary positions: Su et al., arXiv 2104.09864; grouped queries: Ainslie et al., arXiv 2305.13245.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(&self, g: &mut Graph, prefix: &str, x: Tensor, with: &AttentionUse<'_>) -> Result<(Tensor, KeyValues)> {
        let module = format!("{prefix}.{}", self.module);
        let lengths = LinearUse { activation: None, lengths: with.lengths };
        let (q, k, v) = self.project(g, &module, x, with, lengths)?;
        let rotated = |g: &mut Graph, x: Tensor| match self.table(&with.tables.rotary)? {
            Some(rotary) => ops::rope(g, x, with.positions, rotary.table, &rotary.options),
            None => Ok(x),
        };
        let q = rotated(g, q)?;
        let k = if let KvSource::Reuse(_) = with.kv { k } else { rotated(g, k)? };
        let (out, kv) = self.attend(g, &module, [q, k, v], with)?;
        Ok((self.project_back(g, &module, x, out, lengths)?, kv))
    }

    /// Queries, keys and values by head.
    fn project(
        &self,
        g: &mut Graph,
        module: &str,
        x: Tensor,
        with: &AttentionUse<'_>,
        lengths: LinearUse,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let Heads { query, key_value, .. } = self.heads;
        let [q_features, kv_features] = self.features();
        let separate = |g: &mut Graph, name: &str, features: usize, heads: usize| {
            let flat = linear_with(g, &format!("{module}.{name}"), x, features, self.linear, lengths)?;
            self.by_head(g, flat, heads)
        };
        match (self.qkv, with.kv) {
            (QkvNames::Separate([q, ..]), KvSource::Reuse(kv)) => {
                Ok((separate(g, q, q_features, query)?, kv.keys, kv.values))
            }
            (QkvNames::Separate([q, k, v]), _) => Ok((
                separate(g, q, q_features, query)?,
                separate(g, k, kv_features, key_value)?,
                separate(g, v, kv_features, key_value)?,
            )),
            (QkvNames::Fused(name), kv) => {
                let parts = [q_features, kv_features, kv_features];
                let all = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(*part));
                let qkv = linear_with(g, &format!("{module}.{name}"), x, all, self.linear, lengths)?;
                let split = ops::split(g, qkv, 2, &parts)?;
                let q = self.by_head(g, split[0], query)?;
                if let KvSource::Reuse(kv) = kv {
                    return Ok((q, kv.keys, kv.values));
                }
                Ok((q, self.by_head(g, split[1], key_value)?, self.by_head(g, split[2], key_value)?))
            }
        }
    }

    /// This layer's table of rotary positions.
    fn table<'a>(&self, tables: &'a [RotaryTable]) -> Result<Option<&'a RotaryTable>> {
        let Some(options) = &self.rotary else { return Ok(None) };
        let found = tables.iter().find(|table| table.head_dim == self.heads.head_dim && alike(&table.options, options));
        let missing = || Error::Graph("there is no table of rotary positions for an attention layer".into());
        Ok(Some(found.ok_or_else(missing)?))
    }

    /// The bias of this layer's scores.
    fn bias(&self, tables: &PositionTables) -> Result<Option<Tensor>> {
        let Some(relative) = &self.relative else { return Ok(None) };
        let found = tables.relative.iter().find(|(known, heads, _)| known == relative && *heads == self.heads.query);
        let missing = || Error::Graph("there is no relative bias for an attention layer".into());
        Ok(Some(found.ok_or_else(missing)?.2))
    }

    /// What of the probabilities is dropped.
    fn dropout(&self, with: &AttentionUse<'_>) -> Option<AttentionDropout> {
        let seed = with.seed.filter(|_| self.dropout > 0.0)?;
        Some(AttentionDropout { rate: self.dropout, seed, salt: with.salt })
    }

    /// The projection behind attention of `out (B, T, H, D)`, to the last axis of `x`.
    fn project_back(&self, g: &mut Graph, module: &str, x: Tensor, out: Tensor, with: LinearUse) -> Result<Tensor> {
        let d_model = g.shape(x).last();
        let [batch, time, heads, head_dim] = g.shape(out).expect("attention")?;
        let out = ops::reshape(g, out, [batch, time, heads * head_dim])?;
        linear_with(g, &format!("{module}.{}", self.output), out, d_model, self.output_linear, with)
    }

    /// Attention of `q (B, T, H, D)` over `k, v (B, T, Hkv, D)` and what is caches under `module`.
    fn attend(
        &self,
        g: &mut Graph,
        module: &str,
        [q, k, v]: [Tensor; 3],
        with: &AttentionUse<'_>,
    ) -> Result<(Tensor, KeyValues)> {
        let (causal, dropout) = (self.mask == Mask::Causal, self.dropout(with));
        let (scale, window, soft_cap) = (self.scale, self.window, self.soft_cap);
        let mut options = AttentionOptions { causal, scale, window, soft_cap, dropout, ..Default::default() };
        let mut found = KeyValues { keys: k, values: v, lengths: None };
        let whole = matches!(with.kv, KvSource::Uncached { .. } | KvSource::Packed { .. });
        if !causal && !whole {
            let what = "tokens that see later ones have no caches: only whole sequences attend in both directions";
            return Err(Error::shape("attention", what));
        }
        if with.structure.is_some() && !whole {
            let what = "a structure needs whole sequences: a token that is yet to come may head what is in the cache";
            return Err(Error::shape("attention", what));
        }
        options.structure = with.structure;
        options.bias = self.bias(with.tables)?;
        match with.kv {
            KvSource::Uncached { key_mask } => options.key_mask = key_mask,
            KvSource::Prefill { capacity, .. } => {
                self.write_caches(g, module, capacity, with.positions, [k, v])?;
            }
            KvSource::Decode { capacity, lengths } => {
                (found.keys, found.values) = self.write_caches(g, module, capacity, with.positions, [k, v])?;
                found.lengths = Some(lengths);
                options.query_positions = Some(with.positions);
            }
            KvSource::Packed { lengths } => found.lengths = lengths,
            KvSource::Slots { recursion, capacity, slots, lengths, cache_is_empty } => {
                let module =
                    if recursion == 0 { module.to_owned() } else { format!("{module}.recursions.{recursion}") };
                let caches = self.write_caches(g, &module, capacity, slots, [k, v])?;
                found.lengths = Some(lengths);
                if !cache_is_empty {
                    (found.keys, found.values) = caches;
                    options.query_positions = Some(slots);
                }
            }
            KvSource::Reuse(kv) => {
                found = kv;
                options.query_positions = Some(with.positions);
            }
        }
        options.lengths = found.lengths;
        Ok((ops::attention(g, q, found.keys, found.values, &options)?, found))
    }

    /// Writes keys and values to the caches, at these positions, and gives the caches.
    fn write_caches(
        &self,
        g: &mut Graph,
        module: &str,
        capacity: usize,
        positions: Tensor,
        [k, v]: [Tensor; 2],
    ) -> Result<(Tensor, Tensor)> {
        let [batch, ..] = g.shape(k).expect::<4>("attention, k (B, T, H, D)")?;
        let caches = self.caches(g, module, batch, capacity)?;
        ops::cache_write(g, caches, [k, v], positions)
    }

    /// The caches of a module.
    fn caches(&self, g: &mut Graph, module: &str, batch: usize, capacity: usize) -> Result<[Tensor; 2]> {
        let shape = [batch, capacity, self.heads.key_value, self.heads.head_dim];
        let keys = g.state(&format!("{module}.key_cache"), shape, DType::F32)?;
        let values = g.state(&format!("{module}.value_cache"), shape, DType::F32)?;
        Ok([keys, values])
    }

    /// `(B, T, heads · D)` as `(B, T, heads, D)`.
    fn by_head(&self, g: &mut Graph, x: Tensor, heads: usize) -> Result<Tensor> {
        let [batch, time, _] = g.shape(x).expect("attention")?;
        ops::reshape(g, x, [batch, time, heads, self.heads.head_dim])
    }
}

/// Whether two layers turn alike, however long their tables are.
pub(super) fn alike(a: &RopeOptions, b: &RopeOptions) -> bool {
    RopeOptions { max_positions: b.max_positions, ..*a } == *b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attention(qkv: QkvNames, query: usize) -> Attention {
        Attention {
            module: "attn",
            qkv,
            output: "out",
            linear: LinearConfig::in_out(false),
            output_linear: LinearConfig::in_out(false),
            heads: Heads { query, key_value: 1, head_dim: 4 },
            scale: None,
            mask: Mask::Causal,
            rotary: None,
            relative: None,
            window: None,
            soft_cap: None,
            dropout: 0.0,
        }
    }

    static NONE: PositionTables = PositionTables { rotary: Vec::new(), relative: Vec::new() };

    fn whole(positions: Tensor) -> AttentionUse<'static> {
        let kv = KvSource::Uncached { key_mask: None };
        AttentionUse { positions, kv, structure: None, lengths: None, seed: None, salt: 0, tables: &NONE }
    }

    #[test]
    fn more_heads_than_a_number_holds_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [1, 2, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        for qkv in [QkvNames::Fused("qkv"), QkvNames::Separate(["q", "k", "v"])] {
            let error = attention(qkv, usize::MAX).run(&mut g, "layer", x, &whole(positions)).unwrap_err();
            assert!(error.to_string().contains("more elements than any device holds"), "{error}");
        }
        Ok(())
    }

    #[test]
    fn keys_without_axes_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let scalar = g.input("scalar", Vec::new(), DType::F32)?;
        let [positions, lengths] = [g.input("positions", [1, 2], DType::U32)?, g.input("lengths", [1], DType::U32)?];
        let with = AttentionUse { kv: KvSource::Prefill { capacity: 8, lengths }, ..whole(positions) };
        let layer = attention(QkvNames::Fused("qkv"), 2);
        let message = layer.attend(&mut g, "layer", [scalar; 3], &with).unwrap_err().to_string();
        assert!(message.contains("expected 4 axes, got shape []"), "{message}");
        let both = Attention { mask: Mask::Bidirectional, ..layer };
        let message = both.attend(&mut g, "layer", [scalar; 3], &with).unwrap_err().to_string();
        assert!(message.contains("only whole sequences attend in both directions"), "{message}");
        Ok(())
    }

    #[test]
    fn a_layer_without_its_table_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [1, 2, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        let layer = attention(QkvNames::Fused("qkv"), 2);
        let rotated = Attention { rotary: Some(RopeOptions::default()), ..layer };
        let message = rotated.run(&mut g, "layer", x, &whole(positions)).unwrap_err().to_string();
        assert!(message.contains("no table of rotary positions"), "{message}");
        Ok(())
    }
}
