//! The limits tensor: lengths, key mask, query positions or ranges of keys, prefix, window, dropout seed and spans in one tensor, so that attention kernels
//! need a single binding for them.

use super::attention::{AttentionOptions, expect};
use super::spec::{Holds, Parts, Sizes, TILE};
use super::window::Window;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Kind, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::TensorType;
use std::any::Any;

static KEY_LIMITS: Kernel = kernel!("attention/attention_key_limits");

/// The range of visible keys of each query, the mask of real keys, the seed of dropout, and the span that each token covers.
///
/// Optional inputs: lengths (B), key mask (B, Tk), positions (B, Tq) or ranges (B, Tq, 2), the queries' tree mask (B, Tq, 3) and the keys'
/// (B, Tk, 3), the seed (2), the prefix (B), all u32. Output (B, n) u32; a row has the largest limit of each 32 queries; the limit of each
/// query `min(length, end of its range, Tk, max(position + after + 1, prefix))`; with a window or ranges the least start of each 32 queries
/// and the start of each query `max(position − before, first of its range)`; the mask as 0 and 1; the seed; both trees. No gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KeyLimits {
    sizes: Sizes,
    causal: bool,
    window: Option<Window>,
    lengths: bool,
    mask: bool,
    positions: bool,
    ranges: bool,
    tree: bool,
    seed: bool,
    prefix: bool,
}

/// The limits tensor of the options, if one is needed. Layers that share the inputs share the node.
pub(super) fn key_limits(
    g: &mut Graph,
    sizes: &Sizes,
    options: &AttentionOptions,
    window: Option<Window>,
) -> Result<Option<Tensor>> {
    let mut inputs = Vec::new();
    let query_tree = options.query_tree.or(options.tree);
    for (what, tensor, shape) in [
        ("lengths", options.lengths, &[sizes.batch] as &[usize]),
        ("key_mask", options.key_mask, &[sizes.batch, sizes.keys]),
        ("query_positions", options.query_positions, &[sizes.batch, sizes.queries]),
        ("key_ranges", options.key_ranges, &[sizes.batch, sizes.queries, 2]),
        ("query_tree", query_tree, &[sizes.batch, sizes.queries, 3]),
        ("tree", options.tree, &[sizes.batch, sizes.keys, 3]),
        ("the seed of dropout", options.dropout.map(|dropout| dropout.seed), &[2]),
        ("prefix", options.prefix, &[sizes.batch]),
    ] {
        if let Some(tensor) = tensor {
            expect(what, g, tensor, shape, DType::U32)?;
            inputs.push(tensor);
        }
    }
    if inputs.is_empty() {
        return Ok(None);
    }
    let op = KeyLimits {
        sizes: *sizes,
        causal: options.causal,
        window,
        lengths: options.lengths.is_some(),
        mask: options.key_mask.is_some(),
        positions: options.query_positions.is_some(),
        ranges: options.key_ranges.is_some(),
        tree: options.tree.is_some(),
        seed: options.dropout.is_some(),
        prefix: options.prefix.is_some(),
    };
    let same = |kind: &Kind| match kind {
        Kind::Op(other) => (other.as_ref() as &dyn Any).downcast_ref::<KeyLimits>() == Some(&op),
        _ => false,
    };
    let found = g.nodes().iter().rposition(|n| same(&n.kind) && n.inputs == inputs);
    match found {
        Some(node) => Ok(Some(Tensor { node: node as u32, output: 0 })),
        None => g.put1(op, &inputs).map(Some),
    }
}

impl KeyLimits {
    fn has_starts(&self) -> bool {
        self.window.is_some() || self.ranges
    }

    fn parts(&self) -> Parts {
        let (starts, spans) = (self.has_starts(), self.tree);
        self.sizes.parts(Holds { starts, mask: self.mask, seed: self.seed, spans })
    }

    /// The optional inputs: lengths, mask, positions or ranges, both trees, the seed and the prefix.
    fn sort<T>(&self, input: impl Fn(usize) -> T) -> [Option<T>; 7] {
        let mut next = 0;
        let tree = self.tree;
        [self.lengths, self.mask, self.positions || self.ranges, tree, tree, self.seed, self.prefix].map(|there| {
            there.then(|| {
                next += 1;
                input(next - 1)
            })
        })
    }
}

impl Op for KeyLimits {
    fn name(&self) -> &'static str {
        "attention_key_limits"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::new([self.sizes.batch, self.parts().end], DType::U32)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let Sizes { batch, queries, keys, .. } = self.sizes;
        let [lengths, mask, positions, query_tree, tree, seed, prefix] = self.sort(|i| inputs[i]);
        let tiles = queries.div_ceil(TILE);
        let (parts, starts) = (self.parts(), self.sizes.row_words());
        let mut out = Array::zeros([batch, parts.end]);
        for b in 0..batch {
            let length = lengths.map_or(keys, |l| (l.data[b] as usize).min(keys));
            for i in 0..queries {
                let placed = positions.filter(|_| self.positions);
                let position = placed.map_or((i + keys) as i64 - queries as i64, |p| p.row(b)[i] as i64);
                let range =
                    positions.filter(|_| self.ranges).map(|r| [0, 1].map(|end| r.row(b * queries + i)[end] as usize));
                let [first, last] = range.unwrap_or([0, keys]);
                let end = match self.window {
                    Some(window) => window.limit(position, keys),
                    None if self.causal => (position + 1).clamp(0, keys as i64) as usize,
                    None => keys,
                };
                let end = prefix.map_or(end, |prefix| end.max(prefix.data[b] as usize)).min(length).min(last) as f64;
                let row = out.row_mut(b);
                row[tiles + i] = end;
                row[i / TILE] = row[i / TILE].max(end);
                if self.has_starts() {
                    let start =
                        self.window.map_or(0, |window| window.start(position, keys)).max(first.min(keys)) as f64;
                    let tile = starts + i / TILE;
                    row[starts + tiles + i] = start;
                    row[tile] = if i % TILE == 0 { start } else { row[tile].min(start) };
                }
            }
            if let Some(mask) = mask {
                for j in 0..keys {
                    out.row_mut(b)[parts.mask + j] = f64::from(u8::from(mask.row(b)[j] != 0.0));
                }
            }
            if let Some(seed) = seed {
                out.row_mut(b)[parts.seed..][..2].copy_from_slice(&seed.data);
            }
            let spans = [(query_tree, queries), (tree, keys)];
            let spans = spans.into_iter().filter_map(|(given, count)| Some(&given?.data[b * 3 * count..][..3 * count]));
            let spans: Vec<f64> = spans.flatten().copied().collect();
            out.row_mut(b)[parts.spans..].copy_from_slice(&spans);
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let Sizes { batch, queries, keys, .. } = self.sizes;
        let given = self.sort(|i| cx.input(i));
        let flags = [self.causal, self.lengths, self.mask, self.positions, self.tree, self.seed, self.prefix];
        let window = self.window.map_or([0; 3], |window| [1, window.before as usize, window.after as usize]);
        // An absent input is not read, but its binding needs a buffer.
        let view = |given: &Option<View>| given.clone().unwrap_or_else(|| cx.input(0));
        let (tiles, blocks) = (queries.div_ceil(TILE), keys.div_ceil(TILE));
        let mut chunks = tiles + if self.mask { blocks } else { 0 };
        chunks += if self.tree { tiles + blocks } else { 0 };
        let dispatch = given.iter().fold(Dispatch::new(&KEY_LIMITS), |d, given| d.read(view(given)));
        let mut dispatch = dispatch.write(cx.output(0));
        for value in [batch, queries, keys]
            .into_iter()
            .chain(flags.map(usize::from))
            .chain(window)
            .chain([usize::from(self.ranges)])
        {
            dispatch = dispatch.param(value);
        }
        cx.dispatch(dispatch.groups_for(batch * chunks, 64))
    }
}
