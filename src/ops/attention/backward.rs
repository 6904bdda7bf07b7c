//! The backward ops: each has its own reference and can be checked alone.

use super::reference::Scores;
use super::spec::{AttentionSpec, Sizes, by_vectors, input_types};
use super::variant::{AttentionVariant, Kernels};
use crate::error::{Error, Result};
use crate::graph::{Array, Op};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static DELTA: Kernel = kernel!("attention/attention_delta");
static BIAS: Kernel = kernel!("attention/attention_grad_bias");
static BIAS_BY_DISTANCE: Kernel = kernel!("attention/attention_grad_bias_by_distance");
static Q_PER_THREAD: Kernel = kernel!("attention/attention_grad_q_per_thread");
static Q_SHUFFLE: Kernel = kernel!("attention/attention_grad_q_shuffle");
static Q_TILE: Kernel = kernel!("attention/attention_grad_q_tile");
static Q: Kernels =
    Kernels { per_thread: &Q_PER_THREAD, shuffle: &Q_SHUFFLE, tile: &Q_TILE, tile_owners: 256, few: None };
static KV_PER_THREAD: Kernel = kernel!("attention/attention_grad_kv_per_thread");
static KV_SHUFFLE: Kernel = kernel!("attention/attention_grad_kv_shuffle");
static KV_TILE: Kernel = kernel!("attention/attention_grad_kv_tile");
static KV: Kernels =
    Kernels { per_thread: &KV_PER_THREAD, shuffle: &KV_SHUFFLE, tile: &KV_TILE, tile_owners: 128, few: None };

/// The inputs of the gradient ops before the optional ones: q, k, v, dout, stats.
const FIXED: usize = 5;

/// `stats[b, h, i] = (max, 1 / sum, Σ_d out · dout, 0)`, from out and dout (B, Tq, H, D) and tops (B, H, Tq, 2). No gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delta;

impl Op for Delta {
    fn name(&self) -> &'static str {
        "attention_delta"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [out, dout, tops] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 3 inputs, got {}", inputs.len())));
        };
        let [batch, queries, heads, _] = out.shape.expect("attention_delta, out")?;
        if dout != out || tops.shape.dims() != [batch, heads, queries, 2] {
            return Err(Error::shape(self.name(), format!("out is {out}, dout {dout}, tops {tops}")));
        }
        Ok(vec![TensorType::f32([batch, heads, queries, 4])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [batch, queries, heads, _] = inputs[0].shape.expect("attention_delta, out")?;
        let mut stats = Array::zeros([batch, heads, queries, 4]);
        for row in 0..batch * queries * heads {
            let (h, i, b) = (row % heads, row / heads % queries, row / heads / queries);
            let at = (b * heads + h) * queries + i;
            let delta: f64 = inputs[0].row(row).iter().zip(inputs[1].row(row)).map(|(x, y)| x * y).sum();
            let top = inputs[2].row(at);
            stats.row_mut(at).copy_from_slice(&[top[0], top[1], delta, 0.0]);
        }
        Ok(vec![stats])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let [batch, queries, heads, head_dim] = cx.input(0).shape.expect("attention_delta, out")?;
        let rows = batch * queries * heads;
        let dispatch = by_vectors(&DELTA, head_dim)
            .read(cx.input(0))
            .read(cx.input(1))
            .read(cx.input(2))
            .write(cx.output(0))
            .param(batch)
            .param(queries)
            .param(heads);
        cx.dispatch(dispatch.groups_for(rows, 64).flops(2 * (rows * head_dim) as u64))
    }
}

/// Binds the five fixed inputs.
fn bind(cx: &Launch<'_>, sizes: &Sizes, variant: AttentionVariant, dispatch: Dispatch) -> Dispatch {
    sizes.read_heads(dispatch, variant, [0, 1, 2, 3].map(|i| cx.input(i))).read(cx.input(4))
}

/// `dq = scale · dS k`. Inputs: q, k, v, dout, stats, then the limits tensor and the bias, if there are any.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradQ(pub AttentionSpec);

impl Op for GradQ {
    fn name(&self) -> &'static str {
        "attention_grad_q"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        self.0.sizes(self.name(), FIXED, inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![Scores::new(&self.0, FIXED, inputs)?.grad_q()])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let sizes = self.0.sizes(self.name(), FIXED, &input_types(cx))?;
        let extras = self.0.extras(FIXED, |i| cx.input(i));
        let variant =
            AttentionVariant::for_backward(cx, self.name(), &self.0, &sizes, self.0.inputs(FIXED + 1), sizes.keys)?;
        let dispatch = Q.launch(variant, cx.caps(), &sizes, sizes.queries, sizes.heads);
        let dispatch = bind(cx, &sizes, variant, dispatch).write(cx.output(0));
        let flops = 6 * sizes.head_dim as u64 * sizes.pairs(&self.0);
        cx.dispatch(self.0.finish(dispatch, &sizes, extras).flops(flops))
    }
}

/// `dk = scale · dSᵀ q` and `dv = Pᵀ dout`, summed over the query heads that share a key head. Inputs as [`GradQ`].
#[derive(Clone, Copy, Debug)]
pub(super) struct GradKv(pub AttentionSpec);

impl Op for GradKv {
    fn name(&self) -> &'static str {
        "attention_grad_kv"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        self.0.sizes(self.name(), FIXED, inputs)?;
        Ok(vec![inputs[1].clone(), inputs[2].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (dk, dv) = Scores::new(&self.0, FIXED, inputs)?.grad_kv();
        Ok(vec![dk, dv])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let sizes = self.0.sizes(self.name(), FIXED, &input_types(cx))?;
        // The queries of all heads that share a key head.
        let along = sizes.queries * (sizes.heads / sizes.kv_heads.max(1));
        let variant =
            AttentionVariant::for_backward(cx, self.name(), &self.0, &sizes, self.0.inputs(FIXED + 2), along)?;
        let dispatch = KV.launch(variant, cx.caps(), &sizes, sizes.keys, sizes.kv_heads);
        let dispatch = bind(cx, &sizes, variant, dispatch);
        let finish = |cx: &mut Launch<'_>, dispatch: Dispatch, products: u64| {
            let extras = self.0.extras(FIXED, |i| cx.input(i));
            let flops = 2 * products * sizes.head_dim as u64 * sizes.pairs(&self.0);
            cx.dispatch(self.0.finish(dispatch, &sizes, extras).flops(flops))
        };
        if variant == AttentionVariant::PerThread {
            // One gradient per launch: both in one, with masks and bias, would exceed the bindings of some adapters.
            let keys = dispatch.clone().constant("OF_KEYS", true).write(cx.output(0));
            finish(cx, keys, 3)?;
            return finish(cx, dispatch.constant("OF_KEYS", false).write(cx.output(1)), 2);
        }
        finish(cx, dispatch.write(cx.output(0)).write(cx.output(1)), 4)
    }
}

/// `dbias = dS`, summed over the batch if the bias has no batch axis, and over the pairs of a distance if it goes by distance.
/// Inputs as [`GradQ`], with a bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct GradBias(pub AttentionSpec);

impl Op for GradBias {
    fn name(&self) -> &'static str {
        "attention_grad_bias"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        self.0.sizes(self.name(), FIXED, inputs)?;
        let bias = self.0.extras(FIXED, |i| inputs[i].clone()).bias;
        Ok(vec![bias.ok_or_else(|| Error::shape(self.name(), "there is no bias"))?])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![Scores::new(&self.0, FIXED, inputs)?.grad_bias(inputs[inputs.len() - 1])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let sizes = self.0.sizes(self.name(), FIXED, &input_types(cx))?;
        let extras = self.0.extras(FIXED, |i| cx.input(i));
        let out = cx.output(0);
        let by_distance = out.shape.rank() == 2;
        let (kernel, blocks) = match by_distance {
            true => (&BIAS_BY_DISTANCE, sizes.heads * out.shape.last().div_ceil(4)),
            false => {
                let planes = out.numel() / (sizes.queries * sizes.keys);
                (&BIAS, planes * sizes.queries.div_ceil(4) * sizes.keys.div_ceil(4))
            }
        };
        let flops = 4 * sizes.head_dim as u64 * sizes.pairs(&self.0);
        let dispatch = bind(cx, &sizes, AttentionVariant::PerThread, by_vectors(kernel, sizes.head_dim))
            .write(out)
            .groups_for(blocks, 64);
        cx.dispatch(self.0.finish(dispatch, &sizes, extras).flops(flops))
    }
}
