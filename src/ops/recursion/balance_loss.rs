//! The balance loss of a router that assigns each token one of several choices.

use super::router::{RouterLoss, counted, expect, lengths, matrix};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::ops::rows::with_reduction;
use crate::shape::{Shape, TensorType};

static BALANCE_LOSS: Kernel = kernel!("recursion/balance_loss");
static BALANCE_LOSS_BACKWARD: Kernel = kernel!("recursion/balance_loss_backward");

/// The loss that balances tokens over R choices, a scalar: `aux Σ_r share_r · mean(p_r) + z · mean(lse(logits)²)` with
/// `share_r = R · (tokens with choice r) / tokens`.
///
/// `logits` and `probabilities` p (N, R) f32; `choice` (N) u32; with `lengths` (B) u32, where B divides N, only the first
/// `lengths[b]` tokens of each N / B count.
///
/// Gradients: `dlogits = 2 z dloss lse softmax(logits) / tokens`, `dp_r = aux dloss share_r / tokens`; the shares have
/// none.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn balance_loss(
    g: &mut Graph,
    logits: Tensor,
    probabilities: Tensor,
    choice: Tensor,
    lengths: Option<Tensor>,
    loss: RouterLoss,
) -> Result<Tensor> {
    Ok(balance_loss_and_shares(g, logits, probabilities, choice, lengths, loss)?[0])
}

/// [`balance_loss`], and the shares (R).
///
/// # Errors
/// As [`balance_loss`].
pub fn balance_loss_and_shares(
    g: &mut Graph,
    logits: Tensor,
    probabilities: Tensor,
    choice: Tensor,
    lengths: Option<Tensor>,
    loss: RouterLoss,
) -> Result<[Tensor; 2]> {
    let inputs: Vec<Tensor> =
        [Some(logits), Some(probabilities), Some(choice), lengths].into_iter().flatten().collect();
    let found = g.put(BalanceLoss { loss }, &inputs)?;
    Ok([found[0], found[1]])
}

/// See [`balance_loss`]. Inputs: logits, probabilities (N, R), choice (N), and optionally lengths (B). Outputs: the loss,
/// the shares (R), and one over the number of tokens that count.
#[derive(Debug)]
struct BalanceLoss {
    loss: RouterLoss,
}

impl RouterLoss {
    /// The parameters that both kernels of the balance loss have.
    fn of_balance(self, dispatch: Dispatch, logits: &Shape, batch: Option<usize>) -> Dispatch {
        let (tokens, num_choices) = (logits.rows(), logits.last());
        let dispatch = dispatch.param(tokens).param(num_choices).param(tokens / batch.unwrap_or(1).max(1));
        dispatch.param(usize::from(batch.is_some())).param_f32(self.aux).param_f32(self.z)
    }
}

fn log_sum_exp(row: &[f64]) -> f64 {
    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + row.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

impl Op for BalanceLoss {
    fn name(&self) -> &'static str {
        "balance_loss"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [tokens, num_choices] = matrix(self.name(), "the logits", &inputs[0])?;
        expect(self.name(), "the probabilities", &inputs[1], &inputs[0])?;
        expect(self.name(), "the choice", &inputs[2], &TensorType::new([tokens], DType::U32))?;
        if let Some(lengths) = inputs.get(3) {
            let batch = lengths.shape.numel();
            if lengths.dtype != DType::U32 || batch == 0 || tokens % batch != 0 {
                let what = format!("lengths is {lengths}, expected u32[B], B dividing the {tokens} tokens");
                return Err(Error::shape(self.name(), what));
            }
        }
        let scalar = TensorType::f32(Shape::default());
        Ok(vec![scalar.clone(), TensorType::f32([num_choices]), scalar])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        if cx.upstream[1..].iter().any(Option::is_some) {
            return Err(Error::NotDifferentiable { op: "balance_loss (outputs other than the loss)".into() });
        }
        let mut inputs = vec![cx.inputs[0], cx.outputs[1], cx.outputs[2], cx.upstream(0)?];
        inputs.extend(&cx.inputs[3..]);
        let found = cx.graph.put(BalanceLossBackward { loss: self.loss }, &inputs)?;
        let mut gradients = vec![None; cx.inputs.len()];
        (gradients[0], gradients[1]) = (Some(found[0]), Some(found[1]));
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (logits, probabilities, choice) = (inputs[0], inputs[1], inputs[2]);
        let [tokens, num_choices] = logits.shape.expect("balance_loss, logits")?;
        let batch = inputs.get(3).map_or(1, |l| l.data.len());
        let (all, inside) = counted(batch, tokens / batch, inputs.get(3).copied());
        let (mut shares, mut sums, mut squares) = (Array::zeros([num_choices]), vec![0.0; num_choices], 0.0);
        for token in (0..tokens).filter(|&token| inside(token)) {
            squares += log_sum_exp(logits.row(token)).powi(2);
            for r in 0..num_choices {
                sums[r] += probabilities.row(token)[r];
                shares.data[r] += if choice.data[token] == r as f64 { num_choices as f64 / all } else { 0.0 };
            }
        }
        let balance: f64 = shares.data.iter().zip(&sums).map(|(share, sum)| share * sum).sum();
        let loss = (f64::from(self.loss.aux) * balance + f64::from(self.loss.z) * squares) / all;
        Ok(vec![Array::scalar(loss), shares, Array::scalar(1.0 / all)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let batch = (cx.input_count() == 4).then(|| cx.input(3).numel());
        let mut dispatch = with_reduction(Dispatch::new(&BALANCE_LOSS), cx.caps(), 256);
        // An absent input is not read, but its binding needs a buffer.
        for index in [0, 1, 2, cx.input_count() - 1] {
            dispatch = dispatch.read(cx.input(index));
        }
        for index in 0..3 {
            dispatch = dispatch.write(cx.output(index));
        }
        let flops = 8 * logits.numel() as u64;
        cx.dispatch(self.loss.of_balance(dispatch, &logits.shape, batch).groups(1).flops(flops))
    }
}

/// The gradients of [`BalanceLoss`] by logits and probabilities. Inputs: logits (N, R), shares (R), counted, dloss, and
/// optionally lengths (B).
#[derive(Debug)]
struct BalanceLossBackward {
    loss: RouterLoss,
}

impl Op for BalanceLossBackward {
    fn name(&self) -> &'static str {
        "balance_loss_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone(), inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (logits, shares) = (inputs[0], inputs[1]);
        let [tokens, num_choices] = logits.shape.expect("balance_loss, logits")?;
        let batch = inputs.get(4).map_or(1, |l| l.data.len());
        let (all, inside) = counted(batch, tokens / batch, inputs.get(4).copied());
        let factor = inputs[3].data[0] / all;
        let (aux, z) = (f64::from(self.loss.aux), f64::from(self.loss.z));
        let (mut dlogits, mut dchances) = (Array::zeros([tokens, num_choices]), Array::zeros([tokens, num_choices]));
        for token in (0..tokens).filter(|&token| inside(token)) {
            let lse = log_sum_exp(logits.row(token));
            for r in 0..num_choices {
                dlogits.row_mut(token)[r] = 2.0 * z * factor * lse * (logits.row(token)[r] - lse).exp();
                dchances.row_mut(token)[r] = aux * factor * shares.data[r];
            }
        }
        Ok(vec![dlogits, dchances])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let batch = (cx.input_count() == 5).then(|| cx.input(4).numel());
        let mut dispatch = Dispatch::new(&BALANCE_LOSS_BACKWARD);
        for index in [0, if batch.is_some() { 4 } else { 0 }, 1, 2, 3] {
            dispatch = dispatch.read(cx.input(index));
        }
        let dispatch = dispatch.write(cx.output(0)).write(cx.output(1));
        let dispatch = self.loss.of_balance(dispatch, &logits.shape, batch);
        cx.dispatch(dispatch.groups_for(logits.shape.rows(), 64).flops(8 * logits.numel() as u64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, time, num_choices, deviation) in [(1, 1, 1, 1.0), (1, 31, 3, 1.0), (3, 11, 4, 30.0), (2, 257, 9, 2.0)] {
        for padded in [false, true] {
            cases.push(case(batch, time, num_choices, deviation, padded));
        }
    }
    cases
}

fn case(batch: usize, time: usize, num_choices: usize, deviation: f64, padded: bool) -> Case {
    let mut feeds = vec![Feed::normal_scaled("logits", [batch * time, num_choices], 0.5, deviation)];
    if padded {
        feeds.push(lengths(batch, time));
    }
    let name = format!("balance_loss [{batch} · {time}, {num_choices}], deviation {deviation}, padded: {padded}");
    Case::new(name, feeds, |g: &mut Graph, x: &[Tensor]| {
        let probabilities = ops::softmax(g, x[0])?;
        let choice = ops::argmax_rows(g, probabilities, None)?;
        let loss = RouterLoss { aux: 0.7, z: 0.03 };
        Ok(vec![balance_loss(g, x[0], probabilities, choice, x.get(1).copied(), loss)?])
    })
}
