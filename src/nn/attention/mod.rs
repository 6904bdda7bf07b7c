//! Attention as data: projections, positions, mask, and the source of keys and values.

mod cross;
mod kv;
mod latent;
mod qk_norm;
mod tables;

pub(in crate::nn) use kv::all_positions;
pub(crate) use kv::is_cache;
pub use kv::{KeyValues, KvSource};
pub use latent::Latent;
pub use qk_norm::QkNorm;
pub use tables::{PositionTables, Ring, RotaryTable};

use super::dense::{LinearConfig, LinearUse, linear_with};
use super::inputs::Documents;
use super::relative::RelativeBias;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::ops::{self, AttentionDropout, RopeOptions};

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

/// The keys that a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mask {
    /// All: encoders.
    Bidirectional,
    /// Those at or before its own position: decoders.
    Causal,
    /// As `Causal`, and of each row so many from the first on, as [`TokenInputs::prefix`](crate::nn::TokenInputs::prefix) says: a text
    /// that is read as a whole and then continued. Raffel et al., arXiv 1910.10683.
    Prefix,
}

/// Names of the projections to queries, keys and values, after the module's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QkvNames {
    /// A layer each.
    Separate([&'static str; 3]),
    /// One layer, its outputs side by side: all queries, all keys, all values.
    Fused(&'static str),
    /// One layer, its outputs side by side: query, key and value of the first head, then those of the next. There are as many key heads as
    /// query heads.
    Interleaved(&'static str),
    /// Latent attention.
    Latent(Latent),
}

/// An attention layer, of tokens to each other or to those of an encoder. Names stand behind the block's prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The module.
    pub module: &'static str,
    /// The projections in it to queries, keys and values.
    pub qkv: QkvNames,
    /// The output projection in it.
    pub output: &'static str,
    /// The configuration of the projections to queries, keys and values.
    pub linear: LinearConfig,
    /// The configuration of the output projection.
    pub output_linear: LinearConfig,
    /// The standard deviation of fresh weights of a projection to queries alone.
    pub query_std: f64,
    /// The heads.
    pub heads: Heads,
    /// The factor of scores; none: `1 / sqrt(head_dim)`.
    pub scale: Option<f32>,
    /// The keys that a query sees.
    pub mask: Mask,
    /// The norms of queries and keys in front of their positions, if any. Cross-attention has none.
    pub qk_norm: Option<QkNorm>,
    /// c: queries, keys and values stay within -c and c, behind those norms. Cross-attention has no such limit.
    pub clip: Option<f32>,
    /// Rotary positions of queries and keys, if any.
    pub rotary: Option<RopeOptions>,
    /// The bias of scores by distance, if any. Cross-attention has none.
    pub relative: Option<RelativeBias>,
    /// How far from itself a token sees, itself included where it sees none behind it: see [`crate::ops::AttentionOptions::window`]. Of tokens
    /// picked out of a sequence those that were picked count. Tokens see all of an encoder's.
    pub window: Option<usize>,
    /// The soft cap of scores: see [`crate::ops::AttentionOptions::soft_cap`].
    pub soft_cap: Option<f32>,
    /// The rate of dropout on probabilities.
    pub dropout: f32,
    /// The rate of dropout on its result; none: the block's.
    pub output_dropout: Option<f32>,
}

/// The inputs of an attention layer besides the states.
#[derive(Clone, Copy, Debug)]
pub struct AttentionUse<'a> {
    /// The position of each token, `(B, T)`.
    pub positions: Tensor,
    /// The source of keys and values.
    pub kv: KvSource,
    /// The spans of the tokens, `(B, T, 3)`, for sequences that attend to themselves.
    pub tree: Option<Tensor>,
    /// The length of the prefix of each row, `(B)`, for [`Mask::Prefix`].
    pub prefix: Option<Tensor>,
    /// Several texts in each row, for sequences that attend to themselves.
    pub documents: Option<Documents>,
    /// The number of tokens of each row, `(B)`, for products that skip the others. None: all.
    pub lengths: Option<Tensor>,
    /// The seed of dropout, `(2)` u32; none: nothing is dropped.
    pub seed: Option<Tensor>,
    /// Whether tokens of the texts may be missing: biases by distance then go by `positions`, not by the order of the tokens.
    pub picked: bool,
    /// Tells the layers of a model apart where something is dropped.
    pub salt: u32,
    /// The tables of positions, with those of this layer.
    pub tables: &'a PositionTables,
}

impl Attention {
    /// A layer without positions, limits and dropout, whose four projections are made alike; `names` are its module, and in it the
    /// projections to queries, keys and values and the one behind attention.
    #[must_use]
    pub fn new(
        (module, qkv, output): (&'static str, QkvNames, &'static str),
        linear: LinearConfig,
        heads: Heads,
        mask: Mask,
    ) -> Self {
        Self {
            module,
            qkv,
            output,
            linear,
            output_linear: linear,
            query_std: linear.std,
            heads,
            scale: None,
            mask,
            qk_norm: None,
            clip: None,
            rotary: None,
            relative: None,
            window: None,
            soft_cap: None,
            dropout: 0.0,
            output_dropout: None,
        }
    }

    /// Features of all query heads, and of all key heads.
    #[must_use]
    pub fn features(&self) -> [usize; 2] {
        let Heads { query, key_value, head_dim } = self.heads;
        // What no number holds is refused as the size of a weight.
        [query.saturating_mul(head_dim), key_value.saturating_mul(head_dim)]
    }

    /// The elements of the matrices that a token of `d_model` features is multiplied by.
    #[must_use]
    pub fn active_parameters(&self, d_model: usize) -> usize {
        match self.qkv {
            QkvNames::Latent(latent) => latent.active_parameters(d_model, self.heads.query),
            _ => 2 * d_model * self.features().iter().sum::<usize>(),
        }
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
        let [q, k, v] = self.normed(g, &module, [q, k, v], matches!(with.kv, KvSource::Reuse(_)))?;
        let rotary = match self.table(&with.tables.rotary)? {
            Some(rotary) => Some((rotary, rotary.rows(g, with.positions)?)),
            None => None,
        };
        let rotated = |g: &mut Graph, x: Tensor| match rotary {
            Some((rotary, rows)) => ops::rope(g, x, rows, rotary.table, &rotary.options),
            None => Ok(x),
        };
        let q = rotated(g, q)?;
        let k = if let KvSource::Reuse(_) = with.kv { k } else { rotated(g, k)? };
        let (mut out, kv) = self.attend(g, &module, [q, k, v], with)?;
        if let QkvNames::Latent(latent) = self.qkv {
            out = ops::slice(g, out, 3, 0, latent.value_dim)?;
        }
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
        let Heads { query, key_value, head_dim } = self.heads;
        let [q_features, kv_features] = self.features();
        let separate = |g: &mut Graph, name: &str, features: usize, heads: usize, std: f64| {
            let config = self.linear.with_std(std);
            let flat = linear_with(g, &format!("{module}.{name}"), x, features, config, lengths)?;
            self.by_head(g, flat, heads)
        };
        let [q_std, kv_std] = [self.query_std, self.linear.std];
        match (self.qkv, with.kv) {
            (QkvNames::Separate([q, ..]), KvSource::Reuse(kv)) => {
                Ok((separate(g, q, q_features, query, q_std)?, kv.keys, kv.values))
            }
            (QkvNames::Separate([q, k, v]), _) => Ok((
                separate(g, q, q_features, query, q_std)?,
                separate(g, k, kv_features, key_value, kv_std)?,
                separate(g, v, kv_features, key_value, kv_std)?,
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
            (QkvNames::Interleaved(name), kv) => {
                let all = q_features.saturating_mul(3);
                let qkv = linear_with(g, &format!("{module}.{name}"), x, all, self.linear, lengths)?;
                let [batch, time, _] = g.shape(qkv).expect("attention")?;
                let qkv = ops::reshape(g, qkv, [batch, time, query, 3 * head_dim])?;
                let split = ops::split(g, qkv, 3, &[head_dim; 3])?;
                Ok(match kv {
                    KvSource::Reuse(kv) => (split[0], kv.keys, kv.values),
                    _ => (split[0], split[1], split[2]),
                })
            }
            (QkvNames::Latent(latent), kv) => {
                let [q, k, v] = self.project_latent(g, module, &latent, (x, kv), lengths)?;
                Ok((q, k, v))
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

    /// Dropout of probabilities, if any.
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

    /// `(B, T, heads · D)` as `(B, T, heads, D)`.
    fn by_head(&self, g: &mut Graph, x: Tensor, heads: usize) -> Result<Tensor> {
        let [batch, time, _] = g.shape(x).expect("attention")?;
        ops::reshape(g, x, [batch, time, heads, self.heads.head_dim])
    }
}

/// Whether two layers rotate alike, however long their tables are.
pub(super) fn alike(a: &RopeOptions, b: &RopeOptions) -> bool {
    RopeOptions { max_positions: b.max_positions, ..a.clone() } == *b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    fn attention(qkv: QkvNames, query: usize) -> Attention {
        let heads = Heads { query, key_value: 1, head_dim: 4 };
        Attention::new(("attn", qkv, "out"), LinearConfig::in_out(false), heads, Mask::Causal)
    }

    static NONE: PositionTables =
        PositionTables { rotary: Vec::new(), relative: Vec::new(), rings: Vec::new(), max_position: 2 };

    fn whole(positions: Tensor) -> AttentionUse<'static> {
        let kv = KvSource::Uncached { key_mask: None };
        let ([tree, prefix, lengths, seed], documents) = ([None; 4], None);
        AttentionUse { positions, kv, tree, prefix, documents, lengths, seed, picked: false, salt: 0, tables: &NONE }
    }

    #[test]
    fn more_heads_than_a_number_holds_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [1, 2, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        for qkv in [QkvNames::Fused("qkv"), QkvNames::Interleaved("qkv"), QkvNames::Separate(["q", "k", "v"])] {
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
        let ranges = g.input("ranges", [1, 2, 2], DType::U32)?;
        let with = AttentionUse { kv: KvSource::Prefill { capacity: 8, lengths, beams: 1 }, ..whole(positions) };
        let layer = attention(QkvNames::Fused("qkv"), 2);
        let mut refuse = |mask: Mask, with: AttentionUse<'_>, words: &str| {
            let layer = Attention { mask, ..layer.clone() };
            let message = layer.attend(&mut g, "layer", [scalar; 3], &with).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        refuse(Mask::Causal, with, "expected 4 axes, got shape []");
        refuse(Mask::Prefix, with, "the inputs do not say how long the prefix of a row is");
        let picked = AttentionUse { kv: KvSource::Packed { lengths: None }, prefix: Some(lengths), ..with };
        refuse(Mask::Prefix, picked, "tokens picked out of a sequence have no prefix");
        refuse(Mask::Bidirectional, with, "only whole sequences attend in both directions");
        let documents = Some(Documents { ranges, context: None });
        refuse(Mask::Causal, AttentionUse { documents, ..with }, "only whole sequences hold several texts in a row");
        let several = AttentionUse { documents, prefix: Some(lengths), ..whole(positions) };
        refuse(Mask::Prefix, several, "a row of several texts has no prefix");
        Ok(())
    }

    #[test]
    fn a_layer_without_its_table_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [1, 2, 8], DType::F32)?;
        let positions = g.input("positions", [1, 2], DType::U32)?;
        let rotated = Attention { rotary: Some(RopeOptions::default()), ..attention(QkvNames::Fused("qkv"), 2) };
        let message = rotated.run(&mut g, "layer", x, &whole(positions)).unwrap_err().to_string();
        assert!(message.contains("no table of rotary positions"), "{message}");
        Ok(())
    }
}
