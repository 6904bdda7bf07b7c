//! Lengths, key mask, query positions, the seed of dropout and spans as one tensor, so that attention kernels need a single binding for them.

use super::attention::{AttentionOptions, expect};
use super::setting::{Sizes, TILE};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Kind, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::TensorType;
use std::any::Any;

static VISIBLE: Kernel = kernel!("attention/attention_visible");

/// How many keys each query sees, which keys are real, what dropout is seeded with, and which span each token heads.
///
/// Inputs, those that are there: lengths (B), key mask (B, Tk), positions (B, Tq), the queries' structure (B, Tq, 3) and
/// the keys' (B, Tk, 3), the seed (2), all u32. Output (B, n) u32, in a row: the largest limit of each 32 queries, the limit of each
/// query `min(length, Tk, position + 1)`, the mask as 0 and 1, the seed and both structures as they are. No gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Visible {
    sizes: Sizes,
    causal: bool,
    lengths: bool,
    mask: bool,
    positions: bool,
    structure: bool,
    seed: bool,
}

/// The visible tensor of the options, if one is needed. Layers that share the inputs share the node.
pub(super) fn visible(g: &mut Graph, sizes: &Sizes, options: &AttentionOptions) -> Result<Option<Tensor>> {
    let mut inputs = Vec::new();
    let query_structure = options.query_structure.or(options.structure);
    for (what, tensor, shape) in [
        ("lengths", options.lengths, &[sizes.batch] as &[usize]),
        ("key_mask", options.key_mask, &[sizes.batch, sizes.keys]),
        ("query_positions", options.query_positions, &[sizes.batch, sizes.queries]),
        ("query_structure", query_structure, &[sizes.batch, sizes.queries, 3]),
        ("structure", options.structure, &[sizes.batch, sizes.keys, 3]),
        ("the seed of dropout", options.dropout.map(|dropout| dropout.seed), &[2]),
    ] {
        if let Some(tensor) = tensor {
            expect(what, g, tensor, shape, DType::U32)?;
            inputs.push(tensor);
        }
    }
    if inputs.is_empty() {
        return Ok(None);
    }
    let op = Visible {
        sizes: *sizes,
        causal: options.causal,
        lengths: options.lengths.is_some(),
        mask: options.key_mask.is_some(),
        positions: options.query_positions.is_some(),
        structure: options.structure.is_some(),
        seed: options.dropout.is_some(),
    };
    let same = |kind: &Kind| match kind {
        Kind::Op(other) => (other.as_ref() as &dyn Any).downcast_ref::<Visible>() == Some(&op),
        _ => false,
    };
    let found = g.nodes().iter().rposition(|n| same(&n.kind) && n.inputs == inputs);
    match found {
        Some(node) => Ok(Some(Tensor { node: node as u32, output: 0 })),
        None => g.put1(op, &inputs).map(Some),
    }
}

impl Visible {
    fn row(&self) -> usize {
        self.sizes.visible_row(self.mask, self.seed, self.structure)
    }

    /// Lengths, mask, positions, both structures and the seed, those that are there.
    fn sort<T>(&self, input: impl Fn(usize) -> T) -> [Option<T>; 6] {
        let mut next = 0;
        [self.lengths, self.mask, self.positions, self.structure, self.structure, self.seed].map(|there| {
            there.then(|| {
                next += 1;
                input(next - 1)
            })
        })
    }
}

impl Op for Visible {
    fn name(&self) -> &'static str {
        "attention_visible"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::new([self.sizes.batch, self.row()], DType::U32)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let Sizes { batch, queries, keys, .. } = self.sizes;
        let [lengths, mask, positions, query_structure, structure, seed] = self.sort(|i| inputs[i]);
        let tiles = queries.div_ceil(TILE);
        let mut out = Array::zeros([batch, self.row()]);
        for b in 0..batch {
            let length = lengths.map_or(keys, |l| (l.data[b] as usize).min(keys));
            for i in 0..queries {
                let causal = if self.causal { (i + keys + 1).saturating_sub(queries) } else { keys };
                let end = positions.map_or(causal, |p| p.row(b)[i] as usize + 1).min(length) as f64;
                let row = out.row_mut(b);
                row[tiles + i] = end;
                row[i / TILE] = row[i / TILE].max(end);
            }
            if let Some(mask) = mask {
                for j in 0..keys {
                    out.row_mut(b)[tiles + queries + j] = f64::from(u8::from(mask.row(b)[j] != 0.0));
                }
            }
            if let Some(seed) = seed {
                out.row_mut(b)[self.sizes.seed_begin(self.mask)..][..2].copy_from_slice(&seed.data);
            }
            let spans = [(query_structure, queries), (structure, keys)];
            let spans = spans.into_iter().filter_map(|(given, count)| Some(&given?.data[b * 3 * count..][..3 * count]));
            let spans: Vec<f64> = spans.flatten().copied().collect();
            out.row_mut(b)[self.sizes.spans_begin(self.mask, self.seed)..].copy_from_slice(&spans);
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let Sizes { batch, queries, keys, .. } = self.sizes;
        let given = self.sort(|i| cx.input(i));
        let flags = [self.causal, self.lengths, self.mask, self.positions, self.structure, self.seed].map(usize::from);
        // What is absent is not read, but a binding must be there.
        let view = |given: &Option<View>| given.clone().unwrap_or_else(|| cx.input(0));
        let (tiles, blocks) = (queries.div_ceil(TILE), keys.div_ceil(TILE));
        let mut chunks = tiles + if self.mask { blocks } else { 0 };
        chunks += if self.structure { tiles + blocks } else { 0 };
        let dispatch = given.iter().fold(Dispatch::new(&VISIBLE), |d, given| d.read(view(given)));
        let mut dispatch = dispatch.write(cx.output(0));
        for value in [batch, queries, keys].into_iter().chain(flags) {
            dispatch = dispatch.param(value);
        }
        cx.dispatch(dispatch.groups_for(batch * chunks, 64))
    }
}
