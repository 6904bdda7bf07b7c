//! The forward op.

use super::backward::{Delta, GradBias, GradKv, GradQ};
use super::reference::Scores;
use super::setting::{Extras, Setting, by_vectors, input_types};
use super::variant::{AttentionVariant, Kernels};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Op, Tensor};
use crate::kernel::{Kernel, Launch, kernel};
use crate::shape::TensorType;

static ROWS: Kernel = kernel!("attention/attention_forward_rows");
static SHUFFLE: Kernel = kernel!("attention/attention_forward_shuffle");
static TILE: Kernel = kernel!("attention/attention_forward_tile");
static SPLITS: Kernel = kernel!("attention/attention_forward_split");
static SPLIT_THREADS: Kernel = kernel!("attention/attention_forward_split_threads");
static SUBGROUP: Kernel = kernel!("attention/attention_forward_subgroup");
static MERGE: Kernel = kernel!("attention/attention_merge");
static KERNELS: Kernels =
    Kernels { rows: &ROWS, shuffle: &SHUFFLE, tile: &TILE, few: Some([&SPLITS, &SPLIT_THREADS, &SUBGROUP]) };

/// See [`attention`](super::attention()). Inputs: q, k, v, then the visible tensor and the bias, if there are any.
/// Outputs: out (B, Tq, H, D) and tops (B, H, Tq, 2): the row's largest score, and 1 / the sum of exp(score − it), which is 0
/// for a row that sees no key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention(pub Setting);

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let sizes = self.0.sizes("attention", 3, inputs)?;
        Ok(vec![inputs[0].clone(), TensorType::f32([sizes.batch, sizes.heads, sizes.queries, 2])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let setting = self.0;
        if cx.upstream[1].is_some() {
            return Err(Error::Graph("the largest scores and sums of attention have no gradient".into()));
        }
        let dout = cx.upstream(0)?;
        let stats = cx.graph.put1(Delta, &[cx.outputs[0], dout, cx.outputs[1]])?;
        let mut inputs = vec![cx.inputs[0], cx.inputs[1], cx.inputs[2], dout, stats];
        inputs.extend(&cx.inputs[3..]);
        let mut grads = vec![None; cx.inputs.len()];
        if cx.needed[0] {
            grads[0] = Some(cx.graph.put1(GradQ(setting), &inputs)?);
        }
        if cx.needed[1] || cx.needed[2] {
            let both = cx.graph.put(GradKv(setting), &inputs)?;
            grads[1] = Some(both[0]);
            grads[2] = Some(both[1]);
        }
        if setting.bias && cx.needed[setting.inputs(3) - 1] {
            grads[setting.inputs(3) - 1] = Some(cx.graph.put1(GradBias(setting), &inputs)?);
        }
        Ok(grads)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (out, tops) = Scores::new(&self.0, 3, inputs)?.forward();
        Ok(vec![out, tops])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let setting = &self.0;
        let sizes = setting.sizes("attention", 3, &input_types(cx))?;
        let extras = setting.extras(3, |i| cx.input(i));
        let flops = 4 * sizes.width as u64 * sizes.pairs(setting);
        let variant = AttentionVariant::for_forward(cx, self.name(), setting, &sizes, setting.inputs(5))?;
        let dispatch = KERNELS.launch(variant, cx.caps(), &sizes, sizes.queries, sizes.heads);
        let dispatch = sizes.read_heads(dispatch, variant, [0, 1, 2].map(|i| cx.input(i)));
        let Some(split) = variant.split() else {
            let dispatch = dispatch.write(cx.output(0)).write(cx.output(1));
            return cx.dispatch(setting.finish(dispatch, &sizes, extras).flops(flops));
        };
        let rows = [sizes.batch, sizes.queries, sizes.heads, sizes.keys.div_ceil(split)];
        let partials = cx.scratch([&rows[..], &[sizes.width]].concat(), DType::F32);
        let found = cx.scratch([&rows[..], &[2]].concat(), DType::F32);
        let dispatch = dispatch.write(partials.clone()).write(found.clone());
        let (visible, numel) = (extras.visible.clone(), partials.numel() as u64);
        cx.dispatch(setting.finish(dispatch, &sizes, extras).flops(flops))?;
        let merge = by_vectors(&MERGE, sizes.width).constant("SPLIT", split as u32);
        let merge = merge.read(partials).read(found).write(cx.output(0)).write(cx.output(1));
        let vectors = cx.output(0).numel() / if sizes.width.is_multiple_of(4) { 4 } else { 1 };
        let merge = setting.finish(merge, &sizes, Extras { visible, bias: None });
        cx.dispatch(merge.groups_for(vectors, 64).flops(2 * numel))
    }
}
