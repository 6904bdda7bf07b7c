//! Biases of attention scores by the distance of query and key.

use super::attention::KvSource;
use super::inputs::Inputs;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::ops;

/// `bias[h, q, k] = table[bucket(k − q), h]`: distances share buckets, the wider the larger they are. Raffel et al., "Exploring the
/// limits of transfer learning with a unified text-to-text transformer", arXiv 1910.10683.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelativeBias {
    /// The table's name, `(buckets, heads)`.
    pub name: String,
    /// How many buckets there are.
    pub buckets: usize,
    /// The distance from which all share the last bucket.
    pub max_distance: usize,
    /// Keys behind the query have buckets of their own; else all of them share that of distance 0.
    pub bidirectional: bool,
}

impl RelativeBias {
    /// The bucket of a key `distance` behind (positive) or in front of the query.
    ///
    /// The logarithm is taken in f32, as PyTorch takes it: at borders of buckets the last bit decides.
    #[must_use]
    pub fn bucket(&self, distance: i64) -> usize {
        let (buckets, first, far) = match (self.bidirectional, distance > 0) {
            (true, true) => (self.buckets / 2, self.buckets / 2, distance.unsigned_abs()),
            (true, false) => (self.buckets / 2, 0, distance.unsigned_abs()),
            (false, true) => (self.buckets, 0, 0),
            (false, false) => (self.buckets, 0, distance.unsigned_abs()),
        };
        let exact = buckets / 2;
        if far < exact as u64 {
            return first + far as usize;
        }
        let share = (far as f32 / exact as f32).ln() / (self.max_distance as f64 / exact as f64).ln() as f32;
        let wide = exact + (share * (buckets - exact) as f32) as usize;
        first + wide.min(buckets - 1)
    }

    /// The bias of the scores of `heads` heads: `(H, T, T)` for whole sequences, `(B, H, 1, capacity)` for a new token.
    ///
    /// # Errors
    /// [`Error::Shape`] if tokens were picked out of the sequence; those of the ops.
    pub fn scores(&self, g: &mut Graph, heads: usize, inputs: &Inputs) -> Result<Tensor> {
        let table = g.parameter(&self.name, [self.buckets, heads], DType::F32)?;
        let [batch, time] = g.shape(inputs.ids).expect("ids")?;
        match inputs.kv {
            KvSource::Whole { .. } | KvSource::Prefill { .. } | KvSource::Compact { .. } => {
                let ids = self.all(g, time, time);
                let rows = ops::embedding(g, table, ids)?;
                ops::transpose(g, rows, &[2, 0, 1])
            }
            KvSource::Decode { capacity, .. } if time == 1 => {
                let all = self.all(g, inputs.max_position, capacity);
                let positions = ops::reshape(g, inputs.positions, [batch])?;
                let ids = ops::gather_words(g, all, positions)?;
                let rows = ops::embedding(g, table, ids)?;
                let by_head = ops::transpose(g, rows, &[0, 2, 1])?;
                ops::reshape(g, by_head, [batch, heads, 1, capacity])
            }
            _ => Err(Error::shape("attention", "relative biases need whole sequences, or one new token a row")),
        }
    }

    /// The buckets of all queries and keys, `(queries, keys)` u32.
    fn all(&self, g: &mut Graph, queries: usize, keys: usize) -> Tensor {
        let bias = self.clone();
        g.constant_with("buckets", [queries, keys], DType::U32, move || {
            Array::from_fn([queries, keys], |i| bias.bucket((i % keys) as i64 - (i / keys) as i64) as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_paper() {
        let of = |bidirectional| RelativeBias { name: "table".into(), buckets: 32, max_distance: 128, bidirectional };
        let (both, past) = (of(true), of(false));
        assert_eq!(
            [0, -1, -7, -8, -16, -32, -64, -127, -500].map(|d| both.bucket(d)),
            [0, 1, 7, 8, 10, 12, 14, 15, 15]
        );
        assert_eq!([1, 7, 8, 16, 500].map(|d| both.bucket(d)), [17, 23, 24, 26, 31]);
        assert_eq!([3, 0, -15, -16, -32, -64, -127, -128].map(|d| past.bucket(d)), [0, 0, 15, 16, 21, 26, 31, 31]);
    }
}
