//! The loss of a router that selects tokens.

use super::router::{RouterLoss, counted, expect, lengths, matrix};
use super::select::{NONE, SelectOptions, SelectRule};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::ops::rows;
use crate::shape::{Shape, TensorType};

static SELECTION_LOSS: Kernel = kernel!("recursion/selection_loss");
static SELECTION_LOSS_BACKWARD: Kernel = kernel!("recursion/selection_loss_backward");

/// `mean(aux · (softplus(l) − [taken] l) + z · l²)` over the candidates, a scalar: the binary cross-entropy of logits against the selection,
/// and the z-loss.
///
/// `logits` l (B, N) f32; `inverse` (B·N) u32 of [`Selected`](crate::ops::Selected); with `lengths` (B) u32 only the first `lengths[b]`
/// candidates of a row count.
///
/// Gradient: `dl = dloss (aux (σ(l) − [taken]) + 2 z l) / candidates`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the operands do not fit together.
pub fn selection_loss(
    g: &mut Graph,
    logits: Tensor,
    inverse: Tensor,
    lengths: Option<Tensor>,
    loss: RouterLoss,
) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [Some(logits), Some(inverse), lengths].into_iter().flatten().collect();
    g.put1(SelectionLoss { loss }, &inputs)
}

/// See [`selection_loss`]. Inputs: logits (B, N), inverse (B·N), and optionally lengths (B). Output: the loss.
#[derive(Debug)]
struct SelectionLoss {
    loss: RouterLoss,
}

impl SelectionLoss {
    fn dispatch(kernel: &'static Kernel, cx: &Launch<'_>, lengths: bool, loss: RouterLoss) -> Result<Dispatch> {
        let logits = cx.input(0);
        let [batch, candidates] = logits.shape.expect("selection_loss, logits")?;
        let dispatch = Dispatch::new(kernel).read(logits).read(cx.input(1)).read(cx.input(if lengths { 2 } else { 1 }));
        let dispatch = dispatch.param(batch * candidates).param(candidates).param(batch).param(usize::from(lengths));
        Ok(dispatch.param_f32(loss.aux).param_f32(loss.z).groups_for(batch * candidates, 64))
    }
}

impl Op for SelectionLoss {
    fn name(&self) -> &'static str {
        "selection_loss"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [batch, candidates] = matrix(self.name(), "the logits", &inputs[0])?;
        expect(self.name(), "inverse", &inputs[1], &TensorType::new([batch * candidates], DType::U32))?;
        if let Some(lengths) = inputs.get(2) {
            expect(self.name(), "lengths", lengths, &TensorType::new([batch], DType::U32))?;
        }
        Ok(vec![TensorType::f32(Shape::default())])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut inputs = cx.inputs.to_vec();
        inputs.push(cx.upstream(0)?);
        let mut gradients = vec![None; cx.inputs.len()];
        gradients[0] = Some(cx.graph.put1(SelectionLossBackward { loss: self.loss }, &inputs)?);
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [batch, candidates] = inputs[0].shape.expect("selection_loss, logits")?;
        let (all, inside) = counted(batch, candidates, inputs.get(2).copied());
        let (aux, z) = (f64::from(self.loss.aux), f64::from(self.loss.z));
        let mut sum = 0.0;
        for (_, (&l, &slot)) in inputs[0].data.iter().zip(&inputs[1].data).enumerate().filter(|(i, _)| inside(*i)) {
            let taken = if slot == f64::from(NONE) { 0.0 } else { l };
            sum += aux * (l.max(0.0) + (-l.abs()).exp().ln_1p() - taken) + z * l * l;
        }
        Ok(vec![Array::scalar(sum / all)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let losses = cx.scratch(logits.shape.clone(), DType::F32);
        let dispatch = Self::dispatch(&SELECTION_LOSS, cx, cx.input_count() == 3, self.loss)?;
        cx.dispatch(dispatch.write(losses.clone()).flops(8 * logits.numel() as u64))?;
        rows::total_sum(cx, losses, cx.output(0), 1.0)
    }
}

/// The gradient of [`SelectionLoss`] with respect to the logits. Inputs: those of the loss, then dloss.
#[derive(Debug)]
struct SelectionLossBackward {
    loss: RouterLoss,
}

impl Op for SelectionLossBackward {
    fn name(&self) -> &'static str {
        "selection_loss_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(inputs[..1].to_vec())
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [batch, candidates] = inputs[0].shape.expect("selection_loss, logits")?;
        let lengths = (inputs.len() == 4).then(|| inputs[2]);
        let (all, inside) = counted(batch, candidates, lengths);
        let dloss = inputs[inputs.len() - 1].data[0] / all;
        let (aux, z) = (f64::from(self.loss.aux), f64::from(self.loss.z));
        Ok(vec![Array::from_fn([batch, candidates], |i| {
            let l = inputs[0].data[i];
            let taken = f64::from(u8::from(inputs[1].data[i] != f64::from(NONE)));
            if inside(i) { dloss * (aux * (1.0 / (1.0 + (-l).exp()) - taken) + 2.0 * z * l) } else { 0.0 }
        })])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let out = cx.output(0);
        let lengths = cx.input_count() == 4;
        let dispatch = SelectionLoss::dispatch(&SELECTION_LOSS_BACKWARD, cx, lengths, self.loss)?;
        let dloss = cx.input(cx.input_count() - 1);
        let flops = 8 * out.numel() as u64;
        cx.dispatch(dispatch.read(dloss).write(out).flops(flops))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, candidates, deviation) in [(1, 1, 1.0), (2, 31, 1.0), (3, 33, 40.0), (2, 257, 3.0), (1, 20_011, 2.0)] {
        for padded in [false, true] {
            cases.push(case(batch, candidates, deviation, padded));
        }
    }
    cases
}

fn case(batch: usize, candidates: usize, deviation: f64, padded: bool) -> Case {
    let mut feeds = vec![Feed::normal_scaled("logits", [batch, candidates], 0.0, deviation)];
    if padded {
        feeds.push(lengths(batch, candidates));
    }
    let name = format!("selection_loss [{batch}, {candidates}], deviation {deviation}, padded: {padded}");
    Case::new(name, feeds, move |g, x| {
        let options = SelectOptions { lengths: x.get(1).copied(), ..SelectOptions::default() };
        let selected = ops::select(g, x[0], SelectRule::Top(candidates.div_ceil(3)), &options)?;
        let loss = RouterLoss { aux: 0.7, z: 0.03 };
        Ok(vec![selection_loss(g, x[0], selected.inverse, options.lengths, loss)?])
    })
}
