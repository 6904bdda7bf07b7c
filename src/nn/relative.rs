//! Biases of attention scores by the distance of query and key.

use super::attention::{KvSource, all_positions};
use super::inputs::TokenInputs;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Initial, Tensor, check_size};
use crate::ops;
use crate::shape::{Shape, TensorType};

/// The largest bias of each pair in training, 64 MiB.
const MOST_TRAINED_PAIRS: usize = 1 << 24;

/// A bias of scores by the distance of query and key.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RelativeBias {
    /// Learned, from a table of parameters.
    Buckets(RelativeBuckets),
    /// `bias[h, q, k] = −slope(h) · |q − k|`, which is not learnt: see [`RelativeBias::slope`]. Press et al., "Train short, test long:
    /// attention with linear biases enables input length extrapolation", arXiv 2108.12409.
    Alibi,
}

/// `bias[h, q, k] = table[bucket(k − q), h]`: distances share buckets, the wider the larger they are. Raffel et al., "Exploring the
/// limits of transfer learning with a unified text-to-text transformer", arXiv 1910.10683.
#[derive(Clone, Debug, PartialEq)]
pub struct RelativeBuckets {
    /// The table's name, `(buckets, heads)`.
    pub name: String,
    /// The number of buckets.
    pub buckets: usize,
    /// The distance from which all share the last bucket.
    pub max_distance: usize,
    /// Keys behind the query have buckets of their own; else all of them share that of distance 0.
    pub bidirectional: bool,
    /// The standard deviation of a fresh table.
    pub std: f64,
}

impl RelativeBuckets {
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
}

impl RelativeBias {
    /// The slope of head `head` of `heads` with [`RelativeBias::Alibi`]: `2^(−8 (head + 1) / heads)` if `heads` is a power of two. Else
    /// the first heads have the slopes of the largest such `n` below, and the others every second slope of `2 n` heads.
    #[must_use]
    pub fn slope(head: usize, heads: usize) -> f64 {
        let n = heads.checked_ilog2().map_or(1.0, |power| 2_f64.powf(f64::from(power)));
        let head = head as f64;
        let exponent = if head < n { (head + 1.0) / n } else { (2.0 * (head - n) + 1.0) / (2.0 * n) };
        2_f64.powf(-8.0 * exponent)
    }

    /// The bias of the scores of `heads` heads: by distance, `(H, 2T − 1)`, for whole sequences, or `(H, T, T)` where a small one is
    /// trained; `(B, H, T, capacity)` for new tokens.
    ///
    /// # Errors
    /// [`Error::Shape`] if tokens were picked out of the sequence; those of the ops.
    pub fn scores(&self, g: &mut Graph, heads: usize, inputs: &TokenInputs) -> Result<Tensor> {
        let [batch, time] = g.shape(inputs.ids).expect("ids")?;
        match inputs.kv {
            KvSource::Uncached { .. } | KvSource::Prefill { .. } | KvSource::Packed { .. } => {
                let distances = 2 * time.max(1) - 1;
                match self {
                    Self::Alibi => {
                        let shape = Shape::from([heads, distances]);
                        check_size("alibi", &TensorType::f32(shape.clone()))?;
                        Ok(g.constant_with("alibi", shape.clone(), DType::F32, move || {
                            let distance = |i: usize| (i % distances).abs_diff(distances / 2) as f64;
                            Array::from_fn(shape.clone(), |i| -Self::slope(i / distances, heads) * distance(i))
                        }))
                    }
                    // The gradient of a bias of each pair has far more parallel work than that of each distance.
                    Self::Buckets(_) if inputs.training && heads.saturating_mul(time * time) <= MOST_TRAINED_PAIRS => {
                        let table = self.table(g, heads, time)?;
                        let ids = self.all(g, time, time);
                        let rows = ops::embedding(g, table, ids)?;
                        ops::transpose(g, rows, &[2, 0, 1])
                    }
                    Self::Buckets(buckets) => {
                        let table = self.table(g, heads, time)?;
                        let bucket = |i: usize| buckets.bucket(i as i64 - (distances / 2) as i64) as f64;
                        let ids = g.constant("buckets", Array::from_fn([distances], bucket), DType::U32);
                        let rows = ops::embedding(g, table, ids)?;
                        ops::transpose(g, rows, &[1, 0])
                    }
                }
            }
            KvSource::Decode { capacity, .. } => self.of_cache(g, heads, inputs, [batch, capacity]),
            KvSource::Pages { table, page, .. } => {
                let capacity = g.shape(table).last().saturating_mul(page);
                self.of_cache(g, heads, inputs, [batch, capacity])
            }
            _ => Err(Error::shape("attention", "relative biases need whole sequences, or new tokens and a cache")),
        }
    }

    /// The bias of new tokens for the positions of a cache.
    fn of_cache(&self, g: &mut Graph, heads: usize, inputs: &TokenInputs, [batch, keys]: [usize; 2]) -> Result<Tensor> {
        let positions = all_positions(g, batch, keys);
        self.between(g, heads, [inputs.positions, positions], inputs.max_position.max(keys))
    }

    /// The bias of the scores of `heads` heads for queries and keys at these positions, `(B, T)` and `(B, S)` u32, below `positions`:
    /// `(B, H, T, S)`.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn between(&self, g: &mut Graph, heads: usize, places: [Tensor; 2], positions: usize) -> Result<Tensor> {
        let table = self.table(g, heads, positions)?;
        let distances = 2 * positions.max(1) - 1;
        let bias = self.clone();
        let rows = g.constant_with("buckets", [distances], DType::U32, move || {
            Array::from_fn([distances], |i| bias.row(i as i64 - (distances / 2) as i64) as f64)
        });
        let [queries, keys] = places;
        let ids = ops::by_distance(g, rows, queries, keys)?;
        let rows = ops::embedding(g, table, ids)?;
        ops::transpose(g, rows, &[0, 3, 1, 2])
    }

    /// The row of that table for a distance.
    fn row(&self, distance: i64) -> usize {
        match self {
            Self::Buckets(buckets) => buckets.bucket(distance),
            Self::Alibi => distance.unsigned_abs() as usize,
        }
    }

    /// The biases of each head, a row a bucket, or a distance below `distances`.
    fn table(&self, g: &mut Graph, heads: usize, distances: usize) -> Result<Tensor> {
        match self {
            Self::Buckets(buckets) => {
                let initial = Initial::Normal(buckets.std);
                g.full_precision(&buckets.name, [buckets.buckets, heads], initial)
            }
            Self::Alibi => {
                let shape = Shape::from([distances, heads]);
                check_size("alibi", &TensorType::f32(shape.clone()))?;
                Ok(g.constant_with("alibi", shape.clone(), DType::F32, move || {
                    Array::from_fn(shape.clone(), |i| -Self::slope(i % heads, heads) * (i / heads) as f64)
                }))
            }
        }
    }

    /// The rows of that table for all queries and keys, `(queries, keys)` u32.
    fn all(&self, g: &mut Graph, queries: usize, keys: usize) -> Tensor {
        let bias = self.clone();
        g.constant_with("buckets", [queries, keys], DType::U32, move || {
            Array::from_fn([queries, keys], |i| bias.row((i % keys) as i64 - (i / keys) as i64) as f64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Values;
    use crate::nn::{Attention, AttentionUse, Heads, LinearConfig, Mask, PositionTables, QkvNames};

    #[test]
    fn buckets_are_those_of_the_paper() {
        let of = |bidirectional| RelativeBuckets {
            name: "table".into(),
            buckets: 32,
            max_distance: 128,
            bidirectional,
            std: 1.0,
        };
        let (both, past) = (of(true), of(false));
        assert_eq!(
            [0, -1, -7, -8, -16, -32, -64, -127, -500].map(|d| both.bucket(d)),
            [0, 1, 7, 8, 10, 12, 14, 15, 15]
        );
        assert_eq!([1, 7, 8, 16, 500].map(|d| both.bucket(d)), [17, 23, 24, 26, 31]);
        assert_eq!([3, 0, -15, -16, -32, -64, -127, -128].map(|d| past.bucket(d)), [0, 0, 15, 16, 21, 26, 31, 31]);
    }

    #[test]
    fn slopes_are_those_of_the_paper() {
        let slopes = |heads: usize| -> Vec<f64> { (0..heads).map(|head| RelativeBias::slope(head, heads)).collect() };
        let eight = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(|x: f64| 2_f64.powf(-x));
        assert_eq!(slopes(8), eight);
        assert_eq!(slopes(1), [2_f64.powi(-8)]);
        assert_eq!(slopes(2), [2_f64.powi(-4), 2_f64.powi(-8)]);
        assert_eq!(slopes(12), [&eight[..], &[0.5, 1.5, 2.5, 3.5].map(|x: f64| 2_f64.powf(-x))].concat());
        assert_eq!(slopes(3), [2_f64.powi(-4), 2_f64.powi(-8), 2_f64.powi(-2)]);
    }

    fn values(g: &Graph, given: [(&str, Array); 2]) -> Values {
        let fill = |(name, tensor): (&str, Tensor)| {
            let phase = name.len() as f64;
            (name.to_owned(), Array::from_fn(g.shape(tensor).clone(), |i| (1.3 * i as f64 + phase).sin()))
        };
        let mut values: Values = g.parameters().map(fill).collect();
        values.extend(given.map(|(name, array)| (name.to_owned(), array)));
        values
    }

    /// Tokens that were picked attend as all do where the others are hidden, and move the same biases.
    #[test]
    fn picked_tokens_have_the_biases_of_their_positions() -> Result<()> {
        const ROWS: [[f64; 3]; 2] = [[1.0, 4.0, 6.0], [0.0, 2.0, 3.0]];
        let (time, heads, d_model) = (7, 2, 6);
        let buckets =
            RelativeBuckets { name: "bias".into(), buckets: 4, max_distance: 6, bidirectional: true, std: 1.0 };
        let layer = Attention {
            relative: Some(RelativeBias::Buckets(buckets)),
            ..Attention::new(
                ("attn", QkvNames::Separate(["q", "k", "v"]), "out"),
                LinearConfig::out_in(false),
                Heads { query: heads, key_value: heads, head_dim: 3 },
                Mask::Causal,
            )
        };
        let x = Array::from_fn([2, time, d_model], |i| (0.7 * i as f64).cos());
        let with =
            |positions: Tensor, tables: &PositionTables, kv: KvSource, picked: bool, g: &mut Graph, x: Tensor| {
                let (tree, prefix, documents, lengths, seed) = (None, None, None, None, None);
                let with =
                    AttentionUse { positions, kv, tree, prefix, documents, lengths, seed, picked, salt: 0, tables };
                Ok(layer.run(g, "layer", x, &with)?.0)
            };
        let finish = |g: &mut Graph, out: Tensor, given: [(&str, Array); 2]| -> Result<[Array; 2]> {
            let squares = ops::mul(g, out, out)?;
            let loss = ops::sum(g, squares)?;
            let table = g.parameters().find(|(name, _)| *name == "bias").map(|(_, table)| table);
            let table = table.ok_or_else(|| Error::Graph("no table".into()))?;
            let gradient = g.differentiate(loss, &[table])?[0].ok_or_else(|| Error::Graph("no gradient".into()))?;
            let mut found = g.evaluate(&values(g, given), &[out, gradient])?;
            Ok([found.remove(0), found.remove(0)])
        };
        let relative = layer.relative.clone().ok_or_else(|| Error::Graph("no bias".into()))?;
        // All tokens, those that were not picked hidden; the outputs of the others count for nothing.
        let mut g = Graph::new();
        let (ids, states) = (g.input("ids", [2, time], DType::U32)?, g.input("x", [2, time, d_model], DType::F32)?);
        let there = |i: usize| ROWS[i / time].contains(&((i % time) as f64));
        let mask = g.constant("mask", Array::from_fn([2, time], |i| f64::from(u8::from(there(i)))), DType::U32);
        let counted = Array::from_fn([2, time, d_model], |i| f64::from(u8::from(there(i / d_model))));
        let counted = g.constant("counted", counted, DType::F32);
        let inputs = TokenInputs::new(&mut g, ids)?.with_mask(mask);
        let bias = relative.scores(&mut g, heads, &inputs)?;
        let tables =
            PositionTables { relative: vec![(relative, heads, bias)], max_position: time, ..Default::default() };
        let out = with(inputs.positions, &tables, inputs.kv, false, &mut g, states)?;
        let out = ops::mul(&mut g, out, counted)?;
        let ids = Array::zeros([2, time]);
        let whole = finish(&mut g, out, [("ids", ids), ("x", x.clone())])?;
        // The picked tokens alone.
        let mut g = Graph::new();
        let (at, states) = (g.input("at", [2, 3], DType::U32)?, g.input("x", [2, 3, d_model], DType::F32)?);
        let tables = PositionTables { max_position: time, ..Default::default() };
        let out = with(at, &tables, KvSource::Packed { lengths: None }, true, &mut g, states)?;
        let place = |i: usize| i / 3 * time + ROWS[i / 3][i % 3] as usize;
        let some =
            |all: &Array| Array::from_fn([2, 3, d_model], |i| all.data[place(i / d_model) * d_model + i % d_model]);
        let at = Array::new([2, 3], ROWS.concat())?;
        let picked = finish(&mut g, out, [("at", at), ("x", some(&x))])?;
        for (a, b) in some(&whole[0]).data.iter().zip(&picked[0].data).chain(whole[1].data.iter().zip(&picked[1].data))
        {
            approx::assert_relative_eq!(a, b, epsilon = 1e-12, max_relative = 1e-9);
        }
        assert!(picked[1].data.iter().any(|x| x.abs() > 1e-6));
        Ok(())
    }

    #[test]
    fn linear_biases_fall_with_the_distance() -> Result<()> {
        let (heads, time, capacity) = (3, 4, 6);
        let mut g = Graph::new();
        let ids = g.input("ids", [1, time], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        let whole = RelativeBias::Alibi.scores(&mut g, heads, &inputs)?;
        let [ids, at] = [g.input("new", [2, 1], DType::U32)?, g.input("at", [2, 1], DType::U32)?];
        let lengths = g.input("lengths", [2], DType::U32)?;
        let inputs = TokenInputs { kv: KvSource::Decode { capacity, lengths }, ..TokenInputs::new(&mut g, ids)? };
        let new = RelativeBias::Alibi.scores(&mut g, heads, &inputs.with_positions(at, capacity))?;
        let values = Values::from([("at".into(), Array::new([2, 1], vec![5.0, 2.0])?)]);
        let found = g.evaluate(&values, &[whole, new])?;
        assert_eq!(found[0].shape.dims(), [heads, 2 * time - 1]);
        assert_eq!(found[1].shape.dims(), [2, heads, 1, capacity]);
        for head in 0..heads {
            let slope = RelativeBias::slope(head, heads);
            for (query, key) in (0..time).flat_map(|query| (0..=query).map(move |key| (query, key))) {
                let at = head * (2 * time - 1) + key + time - 1 - query;
                assert_eq!(found[0].data[at], -slope * (query - key) as f64);
            }
            for (row, query) in [(0, 5), (1, 2)] {
                for key in 0..=query {
                    let at = (row * heads + head) * capacity + key;
                    assert_eq!(found[1].data[at], -slope * (query - key) as f64);
                }
            }
        }
        // Long texts have a bias of each distance, not of each pair.
        let ids = g.input("long", [1, 8192], DType::U32)?;
        let long = TokenInputs::new(&mut g, ids)?;
        let long = RelativeBias::Alibi.scores(&mut g, 32, &long)?;
        assert_eq!(g.shape(long).dims(), [32, 16_383]);
        let error = RelativeBias::Alibi.scores(&mut g, usize::MAX, &inputs).unwrap_err().to_string();
        assert!(error.contains("more elements than any device holds"), "{error}");
        Ok(())
    }
}
