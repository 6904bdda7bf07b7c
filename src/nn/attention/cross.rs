//! Attention of a decoder's tokens to what an encoder gave.

use super::{Attention, AttentionUse, QkvNames};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::nn::dense::{LinearUse, linear_with};
use crate::nn::inputs::Context;
use crate::ops::{self, AttentionOptions};

impl Attention {
    /// Attention of `x (B, T, C)` under `prefix` to what an encoder gave.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn cross(
        &self,
        g: &mut Graph,
        prefix: &str,
        x: Tensor,
        context: Context,
        with: &AttentionUse<'_>,
    ) -> Result<Tensor> {
        let module = format!("{prefix}.{}", self.module);
        let QkvNames::Separate([q, ..]) = self.qkv else {
            return Err(Error::Graph("cross-attention has projections of its own for queries".into()));
        };
        let lengths = LinearUse { activation: None, lengths: with.lengths };
        let [q_features, _] = self.features();
        let config = self.linear.with_std(self.query_std);
        let q = linear_with(g, &format!("{module}.{q}"), x, q_features, config, lengths)?;
        let mut q = self.by_head(g, q, self.heads.query)?;
        let [batch, time, heads, head_dim] = g.shape(q).expect("attention, q (B, T, H, D)")?;
        let (scale, soft_cap, dropout) = (self.scale, self.soft_cap, self.dropout(with));
        let mut options = AttentionOptions { scale, soft_cap, dropout, ..Default::default() };
        let [k, v] = match context {
            Context::States { states, key_mask } => {
                options.key_mask = key_mask;
                if let Some(documents) = with.documents {
                    let what = "rows of several texts need the encoder's tokens of each: Documents::context";
                    options.key_ranges = Some(documents.context.ok_or_else(|| Error::shape("attention", what))?);
                }
                self.keys_and_values(g, &module, states)?
            }
            Context::Cached { .. } if with.documents.is_some() => {
                return Err(Error::shape("attention", "only whole sequences hold several texts in a row"));
            }
            Context::Cached { capacity, lengths } => {
                options.lengths = Some(lengths);
                let contexts = g.shape(lengths).last();
                // Rows that answer one text see the same keys: they are queries of one row.
                if contexts > 0 && contexts < batch && batch.is_multiple_of(contexts) {
                    q = ops::reshape(g, q, [contexts, batch / contexts * time, heads, head_dim])?;
                }
                self.caches(g, &module, contexts, capacity)?
            }
        };
        let out = ops::attention(g, q, k, v, &options)?;
        let out = ops::reshape(g, out, [batch, time, heads, head_dim])?;
        self.project_back(g, &module, x, out, lengths)
    }

    /// Makes keys and values of an encoder's states, `(B, S, C)`, and keeps them for [`Context::Cached`].
    ///
    /// # Errors
    /// Those of the ops.
    pub fn cache_context(&self, g: &mut Graph, prefix: &str, states: Tensor, capacity: usize) -> Result<()> {
        let module = format!("{prefix}.{}", self.module);
        let [batch, time, _] = g.shape(states).expect("context")?;
        let kv = self.keys_and_values(g, &module, states)?;
        let caches = self.caches(g, &module, batch, capacity)?;
        let positions = Array::from_fn([batch, time], |i| (i % time.max(1)) as f64);
        let positions = g.constant("positions", positions, DType::U32);
        ops::cache_write(g, caches, kv, positions).map(|_| ())
    }

    /// Keys and values of an encoder's states, by head.
    fn keys_and_values(&self, g: &mut Graph, module: &str, states: Tensor) -> Result<[Tensor; 2]> {
        let QkvNames::Separate([_, k, v]) = self.qkv else {
            return Err(Error::Graph("cross-attention has projections of its own for keys and values".into()));
        };
        let [_, features] = self.features();
        let mut project = |name: &str| {
            let flat =
                linear_with(g, &format!("{module}.{name}"), states, features, self.linear, LinearUse::default())?;
            self.by_head(g, flat, self.heads.key_value)
        };
        Ok([project(k)?, project(v)?])
    }
}
