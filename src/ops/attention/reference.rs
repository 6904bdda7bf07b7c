//! Attention in f64, forward and backward, from the definition.

use super::spec::{AttentionSpec, Parts, Sizes, TILE};
use crate::error::Result;
use crate::graph::Array;
use crate::shape::TensorType;

/// The largest score of a row without visible keys, as in the kernels.
const FAR: f64 = -2e38;
/// A bias below this counts as this, so that no sum or difference of scores overflows in f32.
const LEAST_BIAS: f64 = -1e38;

/// The inputs of an attention op.
pub(super) struct Scores<'a> {
    sizes: Sizes,
    parts: Parts,
    spec: AttentionSpec,
    inputs: &'a [&'a Array],
    key_limits: Option<&'a Array>,
    bias: Option<&'a Array>,
    pages: Option<&'a Array>,
}

impl<'a> Scores<'a> {
    /// The inputs of an op with `fixed` inputs before the optional ones.
    pub(super) fn new(spec: &AttentionSpec, fixed: usize, inputs: &'a [&'a Array]) -> Result<Self> {
        let types: Vec<TensorType> = inputs.iter().map(|a| TensorType::f32(a.shape.clone())).collect();
        let sizes = spec.sizes("attention", fixed, &types)?;
        let extras = spec.extras(fixed, |i| inputs[i]);
        let parts = spec.parts(&sizes);
        Ok(Self {
            sizes,
            parts,
            spec: *spec,
            inputs,
            key_limits: extras.key_limits,
            bias: extras.bias,
            pages: extras.pages,
        })
    }

    /// The head of `h` in row `t` of batch `b` of input `index`.
    fn head(&self, index: usize, b: usize, t: usize, h: usize) -> &'a [f64] {
        let dims = self.inputs[index].shape.dims();
        self.inputs[index].row((b * dims[1] + t) * dims[2] + h)
    }

    /// The key or value (input 1 or 2) `j` that head `h` reads.
    fn key(&self, index: usize, b: usize, j: usize, h: usize) -> &'a [f64] {
        match (self.pages, self.spec.pages) {
            (Some(pages), Some([_, size])) => {
                self.head(index, 0, pages.row(b)[j / size] as usize * size + j % size, self.kv_head(h))
            }
            _ => self.head(index, b, j, self.kv_head(h)),
        }
    }

    fn kv_head(&self, h: usize) -> usize {
        h / (self.sizes.heads / self.sizes.kv_heads)
    }

    /// The bias of a pair.
    fn term(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        self.bias.map_or(0.0, |bias| bias.data[self.bias_at(bias, b, h, i, j)])
    }

    /// The index of the bias of a pair.
    fn bias_at(&self, bias: &Array, b: usize, h: usize, i: usize, j: usize) -> usize {
        let Sizes { heads, queries, keys, .. } = self.sizes;
        match bias.shape.rank() {
            2 => h * (queries + keys - 1) + queries - 1 - i + j,
            rank => (((if rank == 4 { b } else { 0 }) * heads + h) * queries + i) * keys + j,
        }
    }

    fn is_visible(&self, b: usize, h: usize, i: usize, j: usize) -> bool {
        let Sizes { queries, keys, .. } = self.sizes;
        if self.term(b, h, i, j) == f64::NEG_INFINITY {
            return false;
        }
        match self.key_limits {
            Some(key_limits) => {
                let (row, tiles) = (key_limits.row(b), queries.div_ceil(TILE));
                let real = !self.spec.masked || row[self.parts.mask + j] != 0.0;
                let spans = &row[self.parts.spans..];
                let span = |token: usize| &spans[3 * token..][..3];
                let related = !self.spec.has_tree || span_covers(span(i), span(queries + j));
                let near = !self.spec.has_starts() || j >= row[self.sizes.row_words() + tiles + i] as usize;
                j < row[tiles + i] as usize && near && real && related
            }
            None => match self.spec.window {
                Some(window) => {
                    let position = (i + keys) as i64 - queries as i64;
                    (window.start(position, keys)..window.limit(position, keys)).contains(&j)
                }
                None => !self.spec.causal || j + queries < i + keys + 1,
            },
        }
    }

    /// The factor of dropout for the probability of a pair.
    fn dropout_factor(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let (Some(drop), Some(key_limits)) = (self.spec.drop, self.key_limits) else { return 1.0 };
        let at = self.parts.seed;
        let seed = [key_limits.row(b)[at] as u32, key_limits.row(b)[at + 1] as u32];
        drop.factor(seed, b * self.sizes.heads + h, i, j, self.sizes.keys)
    }

    fn product(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        f64::from(self.spec.scale) * dot(self.head(0, b, i, h), self.key(1, b, j, h))
    }

    fn score(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let product = self.product(b, h, i, j);
        let capped = self.spec.cap.map_or(product, |cap| f64::from(cap) * (product / f64::from(cap)).tanh());
        capped + self.term(b, h, i, j).max(LEAST_BIAS)
    }

    /// The derivative of a score with respect to `q · k`: the scale times the derivative of the soft cap.
    fn slope(&self, b: usize, h: usize, i: usize, j: usize) -> f64 {
        let through = self.spec.cap.map_or(1.0, |cap| {
            let tanh = (self.product(b, h, i, j) / f64::from(cap)).tanh();
            1.0 - tanh * tanh
        });
        f64::from(self.spec.scale) * through
    }

    /// Calls `each(b, h, i, j)` for every visible pair, queries in order.
    fn for_each_pair(&self, mut each: impl FnMut(usize, usize, usize, usize)) {
        let Sizes { batch, queries, keys, heads, .. } = self.sizes;
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..queries {
                    for j in (0..keys).filter(|&j| self.is_visible(b, h, i, j)) {
                        each(b, h, i, j);
                    }
                }
            }
        }
    }

    fn stat(&self, b: usize, h: usize, i: usize) -> usize {
        (b * self.sizes.heads + h) * self.sizes.queries + i
    }

    /// out and tops.
    pub(super) fn forward(&self) -> (Array, Array) {
        let Sizes { batch, queries, heads, .. } = self.sizes;
        let mut out = Array::zeros(self.inputs[0].shape.clone());
        let mut tops = Array::zeros([batch, heads, queries, 2]);
        let mut top = Array::zeros([batch, heads, queries]).map(|_| FAR);
        let mut sum = top.map(|_| 0.0);
        self.for_each_pair(|b, h, i, j| {
            let top = &mut top.data[self.stat(b, h, i)];
            *top = top.max(self.score(b, h, i, j));
        });
        self.for_each_pair(|b, h, i, j| {
            let at = self.stat(b, h, i);
            let weight = (self.score(b, h, i, j) - top.data[at]).exp();
            sum.data[at] += weight;
            let weight = weight * self.dropout_factor(b, h, i, j);
            add(out.row_mut((b * queries + i) * heads + h), weight, self.key(2, b, j, h));
        });
        for b in 0..batch {
            for (h, i) in (0..heads).flat_map(|h| (0..queries).map(move |i| (h, i))) {
                let at = self.stat(b, h, i);
                if sum.data[at] > 0.0 {
                    out.row_mut((b * queries + i) * heads + h).iter_mut().for_each(|x| *x /= sum.data[at]);
                    tops.row_mut(at)[1] = 1.0 / sum.data[at];
                }
                tops.row_mut(at)[0] = top.data[at];
            }
        }
        (out, tops)
    }

    /// The probability of a pair after dropout and the gradient of its score plus bias, from the stats; inputs 3 and 4 are dout and stats.
    fn pair(&self, b: usize, h: usize, i: usize, j: usize) -> (f64, f64) {
        let stat = self.inputs[4].row(self.stat(b, h, i));
        let probability = (self.score(b, h, i, j) - stat[0]).exp() * stat[1];
        let drop = self.dropout_factor(b, h, i, j);
        let upstream = drop * dot(self.head(3, b, i, h), self.key(2, b, j, h));
        (probability * drop, probability * (upstream - stat[2]))
    }

    /// dq.
    pub(super) fn grad_q(&self) -> Array {
        let mut dq = Array::zeros(self.inputs[0].shape.clone());
        self.for_each_pair(|b, h, i, j| {
            let (_, ds) = self.pair(b, h, i, j);
            let row = (b * self.sizes.queries + i) * self.sizes.heads + h;
            add(dq.row_mut(row), self.slope(b, h, i, j) * ds, self.key(1, b, j, h));
        });
        dq
    }

    /// dk and dv.
    pub(super) fn grad_kv(&self) -> (Array, Array) {
        let mut dk = Array::zeros(self.inputs[1].shape.clone());
        let mut dv = dk.clone();
        self.for_each_pair(|b, h, i, j| {
            let (probability, ds) = self.pair(b, h, i, j);
            let row = (b * self.sizes.keys + j) * self.sizes.kv_heads + self.kv_head(h);
            add(dk.row_mut(row), self.slope(b, h, i, j) * ds, self.head(0, b, i, h));
            add(dv.row_mut(row), probability, self.head(3, b, i, h));
        });
        (dk, dv)
    }

    /// dbias, in the bias's shape.
    pub(super) fn grad_bias(&self, bias: &Array) -> Array {
        let mut dbias = Array::zeros(bias.shape.clone());
        self.for_each_pair(|b, h, i, j| dbias.data[self.bias_at(bias, b, h, i, j)] += self.pair(b, h, i, j).1);
        dbias
    }
}

/// Whether the span of one of two tokens covers the other; each is (position, first, last).
fn span_covers(a: &[f64], b: &[f64]) -> bool {
    let covers = |a: &[f64], b: &[f64]| a[1] <= b[0] && b[0] <= a[2];
    covers(a, b) || covers(b, a)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(x, y)| *x += factor * y);
}
