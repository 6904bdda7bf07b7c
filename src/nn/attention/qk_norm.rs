//! Norms and limits of queries, keys and values.

use super::{Attention, Heads};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::nn::norm::NormKind;
use crate::ops;

/// The norms of queries and keys, between projection and positions. Henry et al., `Query-Key Normalization for Transformers`, 2020
/// (arXiv 2010.04245).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    /// The norms of queries and of keys, after the module's name.
    pub names: [&'static str; 2],
    /// Their kind.
    pub norm: NormKind,
    /// Each runs over all heads of a token together, with a gain for every feature of them; else over each head alone, with one gain for all heads.
    pub over_all_heads: bool,
}

impl Attention {
    /// Queries, keys and values `(B, T, heads, D)` behind the norms and within the limit. Keys and values that are `reused` have been there before.
    pub(super) fn normed(
        &self,
        g: &mut Graph,
        module: &str,
        [q, k, v]: [Tensor; 3],
        reused: bool,
    ) -> Result<[Tensor; 3]> {
        let Heads { query, key_value, .. } = self.heads;
        let mut found = [q, k, v];
        let own = if reused { 1 } else { 3 };
        if let Some(norm) = &self.qk_norm {
            let parts = norm.names.into_iter().zip([query, key_value]);
            for (x, (name, heads)) in found.iter_mut().take(own).zip(parts) {
                let name = format!("{module}.{name}");
                *x = if norm.over_all_heads {
                    let [batch, time, ..] = g.shape(*x).expect::<4>("attention")?;
                    let flat = ops::reshape(g, *x, [batch, time, heads * self.heads.head_dim])?;
                    let flat = norm.norm.apply(g, &name, flat)?;
                    self.by_head(g, flat, heads)?
                } else {
                    norm.norm.apply(g, &name, *x)?
                };
            }
        }
        if let Some(limit) = self.clip {
            for x in found.iter_mut().take(own) {
                *x = ops::clip(g, *x, limit)?;
            }
        }
        Ok(found)
    }
}
