//! Latent attention: keys and values of all heads are made of a few features.

use super::{Attention, Heads, KvSource};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::nn::dense::{LinearConfig, LinearUse, linear_with};
use crate::nn::norm::NormKind;
use crate::ops;

/// The norms of the few features, whose epsilon no configuration changes.
const NORM: NormKind = NormKind::Rms { eps: 1e-6 };

/// The sizes of multi-head latent attention. Names are those of DeepSeek's files.
///
/// `c = norm(x Wa)` are a few features of a token, `rank` of them. Keys and values of all heads are `c Wb`; behind each key stand `rotary_dim`
/// elements with a position, which all heads share and which `x Wa` gives as well. Queries are `norm(x Wqa) Wqb`, or `x Wq` without a
/// `query_rank`. Attention runs over heads of [`Heads::head_dim`], the larger of a key and a value: zeros stand in front of shorter
/// queries and keys, and behind shorter values. DeepSeek-AI, "DeepSeek-V2", 2024 (arXiv 2405.04434).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent {
    /// Features between the two layers of queries; none: one layer.
    pub query_rank: Option<usize>,
    /// Features that keys and values are made of.
    pub rank: usize,
    /// Elements of a query and a key without positions.
    pub plain_dim: usize,
    /// Elements of a query and a key with positions, behind the others.
    pub rotary_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl Latent {
    /// Elements of a query and a key.
    #[must_use]
    pub fn key_dim(&self) -> usize {
        self.plain_dim.saturating_add(self.rotary_dim)
    }

    /// The heads that attention runs over.
    #[must_use]
    pub fn heads(&self, count: usize) -> Heads {
        Heads { query: count, key_value: count, head_dim: self.key_dim().max(self.value_dim) }
    }

    /// The elements of the matrices that a token of `d_model` features is multiplied by.
    pub(crate) fn active_parameters(&self, d_model: usize, heads: usize) -> usize {
        let queries = heads * self.key_dim();
        let to_queries = self.query_rank.map_or(d_model * queries, |rank| rank * (d_model + queries));
        let to_keys = d_model * (self.rank + self.rotary_dim) + self.rank * heads * (self.plain_dim + self.value_dim);
        to_queries + to_keys + heads * self.value_dim * d_model
    }
}

impl Attention {
    /// Queries, keys and values by head, `(B, T, H, D)`, in front of their positions.
    pub(super) fn project_latent(
        &self,
        g: &mut Graph,
        module: &str,
        latent: &Latent,
        (x, kv): (Tensor, KvSource),
        with: LinearUse,
    ) -> Result<[Tensor; 3]> {
        let Latent { query_rank, rank, plain_dim, rotary_dim, value_dim } = *latent;
        let Heads { query: heads, head_dim, .. } = self.heads;
        let [batch, time, _] = g.shape(x).expect("attention")?;
        // Only layers to the few features may have biases.
        let plain = LinearConfig { bias: false, ..self.linear };
        let name = |part: &str| format!("{module}.{part}");
        let features = heads.saturating_mul(latent.key_dim());
        let q = match query_rank {
            None => linear_with(g, &name("q_proj"), x, features, plain.with_std(self.query_std), with)?,
            Some(rank) => {
                let few = linear_with(g, &name("q_a_proj"), x, rank, self.linear, with)?;
                let few = NORM.apply(g, &name("q_a_layernorm"), few)?;
                linear_with(g, &name("q_b_proj"), few, features, plain, with)?
            }
        };
        let q = ops::reshape(g, q, [batch, time, heads, latent.key_dim()])?;
        let missing = |dim: usize| Some(head_dim - dim).filter(|missing| *missing > 0);
        let zeros = |g: &mut Graph, dim: usize| {
            missing(dim).map(|missing| ops::zeros(g, [batch, time, heads, missing])).transpose()
        };
        let front = zeros(g, latent.key_dim())?;
        let q = concat(g, [front, Some(q), None])?;
        if let KvSource::Reuse(kv) = kv {
            return Ok([q, kv.keys, kv.values]);
        }
        let few = rank.saturating_add(rotary_dim);
        let few = linear_with(g, &name("kv_a_proj_with_mqa"), x, few, self.linear, with)?;
        let parts = ops::split(g, few, 2, &[rank, rotary_dim])?;
        let shared = ops::reshape(g, parts[1], [batch, time, 1, rotary_dim])?;
        let shared = repeated(g, shared, heads)?;
        let few = NORM.apply(g, &name("kv_a_layernorm"), parts[0])?;
        let wide = heads.saturating_mul(plain_dim.saturating_add(value_dim));
        let wide = linear_with(g, &name("kv_b_proj"), few, wide, plain, with)?;
        let wide = ops::reshape(g, wide, [batch, time, heads, plain_dim + value_dim])?;
        let parts = ops::split(g, wide, 3, &[plain_dim, value_dim])?;
        let k = concat(g, [front, Some(parts[0]), Some(shared)])?;
        let behind = zeros(g, value_dim)?;
        let v = concat(g, [Some(parts[1]), behind, None])?;
        Ok([q, k, v])
    }
}

/// The parts that are there, one behind the other in each head.
fn concat(g: &mut Graph, parts: [Option<Tensor>; 3]) -> Result<Tensor> {
    let parts: Vec<Tensor> = parts.into_iter().flatten().collect();
    ops::concat(g, &parts, 3)
}

/// The one head of `x (B, T, 1, D)` for each of `heads`, in about log₂ copies.
fn repeated(g: &mut Graph, x: Tensor, heads: usize) -> Result<Tensor> {
    let (mut all, mut count) = (x, 1);
    while count < heads {
        let more = count.min(heads - count);
        let part = ops::slice(g, all, 2, 0, more)?;
        all = ops::concat(g, &[all, part], 2)?;
        count += more;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Values};

    #[test]
    fn one_head_becomes_several_and_their_gradients_one() -> Result<()> {
        for heads in [1, 2, 5, 8] {
            let mut g = Graph::new();
            let x = g.parameter("x", [2, 1, 1, 3], DType::F32)?;
            let all = repeated(&mut g, x, heads)?;
            assert_eq!(g.shape(all).dims(), [2, 1, heads, 3]);
            let loss = ops::sum(&mut g, all)?;
            let gradient = g.differentiate(loss, &[x])?[0].unwrap_or(x);
            let values = Values::from([("x".to_owned(), Array::from_fn([2, 1, 1, 3], |i| i as f64))]);
            let found = g.evaluate(&values, &[all, gradient])?;
            assert!(found[0].data.iter().enumerate().all(|(i, x)| *x == (i / (3 * heads) * 3 + i % 3) as f64));
            assert!(found[1].data.iter().all(|x| *x == heads as f64));
        }
        Ok(())
    }

    #[test]
    fn heads_are_as_wide_as_the_wider_of_key_and_value() {
        let latent = Latent { query_rank: None, rank: 5, plain_dim: 6, rotary_dim: 4, value_dim: 12 };
        assert_eq!(latent.heads(3).head_dim, 12);
        assert_eq!(Latent { value_dim: 7, ..latent }.heads(3).head_dim, 10);
        assert_eq!(latent.active_parameters(8, 3), 8 * 30 + 8 * 9 + 5 * 3 * 18 + 36 * 8);
        let ranked = Latent { query_rank: Some(2), ..latent };
        assert_eq!(ranked.active_parameters(8, 3), 2 * 38 + 8 * 9 + 5 * 3 * 18 + 36 * 8);
    }
}
