//! The forward op.

use super::backward::{Delta, GradBias, GradKv, GradQ};
use super::reference::Scores;
use super::spec::{AttentionSpec, Extras, by_vectors, input_types, with_kv};
use super::variant::{AttentionVariant, Kernels};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Op, Tensor};
use crate::kernel::{Kernel, Launch, kernel};
use crate::shape::TensorType;

static ROWS: Kernel = kernel!("attention/attention_forward_per_thread");
static SHUFFLE: Kernel = kernel!("attention/attention_forward_shuffle");
static TILE: Kernel = kernel!("attention/attention_forward_tile");
static SPLITS: Kernel = kernel!("attention/attention_forward_split_k");
static SPLIT_THREADS: Kernel = kernel!("attention/attention_forward_split_k_per_thread");
static SUBGROUP: Kernel = kernel!("attention/attention_forward_subgroup");
static MERGE: Kernel = kernel!("attention/attention_merge");
static KERNELS: Kernels = Kernels {
    per_thread: &ROWS,
    shuffle: &SHUFFLE,
    tile: &TILE,
    tile_owners: 256,
    few: Some([&SPLITS, &SPLIT_THREADS, &SUBGROUP]),
};

/// See [`attention`](super::attention()). Inputs: q, k, v, then the limits tensor, the bias and the pages, if there are any.
/// Outputs: out (B, Tq, H, D) and tops (B, H, Tq, 2): the row's largest score m and 1 / Σ exp(score − m), which is 0 for a row without
/// visible keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention(pub AttentionSpec);

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let sizes = self.0.sizes("attention", 3, inputs)?;
        Ok(vec![inputs[0].clone(), TensorType::f32([sizes.batch, sizes.heads, sizes.queries, 2])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let spec = self.0;
        if cx.upstream[1].is_some() {
            return Err(Error::Graph("the largest scores and sums of attention have no gradient".into()));
        }
        if spec.pages.is_some() || cx.graph.dtype(cx.inputs[1]) != DType::F32 {
            return Err(Error::Graph("attention to keys in pages, or of fewer bits than f32, has no gradient".into()));
        }
        let dout = cx.upstream(0)?;
        let stats = cx.graph.put1(Delta, &[cx.outputs[0], dout, cx.outputs[1]])?;
        let mut inputs = vec![cx.inputs[0], cx.inputs[1], cx.inputs[2], dout, stats];
        inputs.extend(&cx.inputs[3..]);
        let mut grads = vec![None; cx.inputs.len()];
        if cx.needed[0] {
            grads[0] = Some(cx.graph.put1(GradQ(spec), &inputs)?);
        }
        if cx.needed[1] || cx.needed[2] {
            let both = cx.graph.put(GradKv(spec), &inputs)?;
            grads[1] = Some(both[0]);
            grads[2] = Some(both[1]);
        }
        if spec.bias && cx.needed[spec.inputs(3) - 1] {
            grads[spec.inputs(3) - 1] = Some(cx.graph.put1(GradBias(spec), &inputs)?);
        }
        Ok(grads)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (out, tops) = Scores::new(&self.0, 3, inputs)?.forward();
        Ok(vec![out, tops])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let spec = &self.0;
        let sizes = spec.sizes("attention", 3, &input_types(cx))?;
        let extras = spec.extras(3, |i| cx.input(i));
        let flops = 4 * sizes.head_dim as u64 * sizes.pairs(spec);
        let variant = AttentionVariant::for_forward(cx, self.name(), spec, &sizes, spec.inputs(5))?;
        let dispatch = KERNELS.launch(variant, cx.caps(), &sizes, sizes.queries, sizes.heads);
        let dispatch = sizes.read_heads(dispatch, variant, [0, 1, 2].map(|i| cx.input(i)));
        let dispatch = match variant {
            AttentionVariant::Shuffle => dispatch,
            _ => with_kv(dispatch, sizes.kv, cx.input(1).numel()),
        };
        let Some(split) = variant.split() else {
            let dispatch = dispatch.write(cx.output(0)).write(cx.output(1));
            return cx.dispatch(spec.finish(dispatch, &sizes, extras).flops(flops));
        };
        let rows = [sizes.batch, sizes.queries, sizes.heads, sizes.keys.div_ceil(split)];
        let partials = cx.scratch([&rows[..], &[sizes.head_dim]].concat(), DType::F32);
        let found = cx.scratch([&rows[..], &[2]].concat(), DType::F32);
        let dispatch = dispatch.write(partials.clone()).write(found.clone());
        let (key_limits, numel) = (extras.key_limits.clone(), partials.numel() as u64);
        cx.dispatch(spec.finish(dispatch, &sizes, extras).flops(flops))?;
        let merge = by_vectors(&MERGE, sizes.head_dim).constant("SPLIT", split as u32);
        let merge = merge.read(partials).read(found).write(cx.output(0)).write(cx.output(1));
        let vectors = cx.output(0).numel() / if sizes.head_dim.is_multiple_of(4) { 4 } else { 1 };
        let merge = spec.finish(merge, &sizes, Extras { key_limits, bias: None, pages: None });
        cx.dispatch(merge.groups_for(vectors, 64).flops(2 * numel))
    }
}
