//! Routers of tokens: their losses, and the way that each token takes.

use super::select::NONE;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows::{self, workgroup_reduction};
use crate::shape::{Shape, TensorType};

static SELECTION_LOSS: Kernel = kernel!("recursion/selection_loss");
static SELECTION_LOSS_BACKWARD: Kernel = kernel!("recursion/selection_loss_backward");
static BALANCE_LOSS: Kernel = kernel!("recursion/balance_loss");
static BALANCE_LOSS_BACKWARD: Kernel = kernel!("recursion/balance_loss_backward");
static ARGMAX_ROWS: Kernel = kernel!("recursion/argmax_rows");
static PICK: Kernel = kernel!("recursion/pick");
static PICK_BACKWARD: Kernel = kernel!("recursion/pick_backward");

/// What the parts of a router's loss are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterLoss {
    /// The auxiliary loss: of who is taken, or of the balance.
    pub aux: f32,
    /// The z-loss: the mean of squared log-sum-exps, which of a single logit is its square.
    pub z: f32,
}

/// `mean(aux · (softplus(l) − [taken] l) + z · l²)` over the candidates, a scalar: the binary cross-entropy of logits
/// against what was taken, and the z-loss.
///
/// `logits` (B, N) f32; `inverse` (B·N) u32 of [`Selected`](super::Selected); `lengths` (B) u32 if only the first so many
/// candidates of a row count.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
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

/// The loss that spreads tokens over R ways, a scalar: `aux Σ_r share_r · mean(p_r) + z · mean(lse(logits)²)` with
/// `share_r = R · (tokens on way r) / tokens`.
///
/// `logits` and `chances` p (N, R) f32; `way` (N) u32; `lengths` (B) u32, which divides N, if only the first so many tokens of
/// each N / B count. The shares have no gradient.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn balance_loss(
    g: &mut Graph,
    logits: Tensor,
    chances: Tensor,
    way: Tensor,
    lengths: Option<Tensor>,
    loss: RouterLoss,
) -> Result<Tensor> {
    Ok(balance_loss_and_shares(g, logits, chances, way, lengths, loss)?[0])
}

/// [`balance_loss`], and the shares (R).
///
/// # Errors
/// As [`balance_loss`].
pub fn balance_loss_and_shares(
    g: &mut Graph,
    logits: Tensor,
    chances: Tensor,
    way: Tensor,
    lengths: Option<Tensor>,
    loss: RouterLoss,
) -> Result<[Tensor; 2]> {
    let inputs: Vec<Tensor> = [Some(logits), Some(chances), Some(way), lengths].into_iter().flatten().collect();
    let found = g.put(BalanceLoss { loss }, &inputs)?;
    Ok([found[0], found[1]])
}

/// The column of the largest element of each row of `x` (N, R) f32, of equal ones the first: (N) u32. With a `bias` (R)
/// f32 that is added first. No gradient.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix or the bias does not fit it.
pub fn argmax_rows(g: &mut Graph, x: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [Some(x), bias].into_iter().flatten().collect();
    g.put1(ArgmaxRows, &inputs)
}

/// `x[n, index[n]]` of `x` (N, R) f32 and `index` (N) u32: (N) f32; 0 where the index is no column.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix or the index has another number of rows.
pub fn pick(g: &mut Graph, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.put1(Pick, &[x, index])
}

fn matrix(op: &str, what: &str, ty: &TensorType) -> Result<[usize; 2]> {
    match ty.shape.dims() {
        &[rows, columns] if ty.dtype == DType::F32 && rows * columns > 0 => Ok([rows, columns]),
        _ => Err(Error::shape(op, format!("expected {what} to be an f32 matrix, got {ty}"))),
    }
}

fn expect(op: &str, what: &str, ty: &TensorType, expected: &TensorType) -> Result<()> {
    if ty == expected { Ok(()) } else { Err(Error::shape(op, format!("{what} is {ty}, expected {expected}"))) }
}

/// How many candidates count in all, and whether candidate `i` does.
fn counted(batch: usize, time: usize, lengths: Option<&Array>) -> (f64, impl Fn(usize) -> bool) {
    let length = move |b: usize| lengths.map_or(time, |l| (l.data[b] as usize).min(time));
    let all = (0..batch).map(length).sum::<usize>().max(1) as f64;
    (all, move |i: usize| i % time < length(i / time))
}

/// See [`selection_loss`]. Inputs: logits (B, N), inverse (B·N), and lengths (B) if they are there. Output: the loss.
///
/// Gradient: `dl = dloss (aux (σ(l) − [taken]) + 2 z l) / candidates`.
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

/// The gradient of [`SelectionLoss`] by the logits. Inputs: those of the loss, then dloss.
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

/// See [`balance_loss`]. Inputs: logits, chances (N, R), way (N), and lengths (B) if they are there. Outputs: the loss, the
/// shares (R), and one over the number of tokens that count.
///
/// Gradients: `dlogits = 2 z dloss lse softmax(logits) / tokens`, `dp_r = aux dloss share_r / tokens`.
#[derive(Debug)]
struct BalanceLoss {
    loss: RouterLoss,
}

impl RouterLoss {
    /// The parameters that both kernels of the balance loss have.
    fn of_balance(self, dispatch: Dispatch, logits: &Shape, batch: Option<usize>) -> Dispatch {
        let (tokens, ways) = (logits.rows(), logits.last());
        let dispatch = dispatch.param(tokens).param(ways).param(tokens / batch.unwrap_or(1).max(1));
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
        let [tokens, ways] = matrix(self.name(), "the logits", &inputs[0])?;
        expect(self.name(), "the chances", &inputs[1], &inputs[0])?;
        expect(self.name(), "the way", &inputs[2], &TensorType::new([tokens], DType::U32))?;
        if let Some(lengths) = inputs.get(3) {
            let batch = lengths.shape.numel();
            if lengths.dtype != DType::U32 || batch == 0 || tokens % batch != 0 {
                let what = format!("lengths is {lengths}, expected u32[B], B dividing the {tokens} tokens");
                return Err(Error::shape(self.name(), what));
            }
        }
        let scalar = TensorType::f32(Shape::default());
        Ok(vec![scalar.clone(), TensorType::f32([ways]), scalar])
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
        let (logits, chances, way) = (inputs[0], inputs[1], inputs[2]);
        let [tokens, ways] = logits.shape.expect("balance_loss, logits")?;
        let batch = inputs.get(3).map_or(1, |l| l.data.len());
        let (all, inside) = counted(batch, tokens / batch, inputs.get(3).copied());
        let (mut shares, mut sums, mut squares) = (Array::zeros([ways]), vec![0.0; ways], 0.0);
        for token in (0..tokens).filter(|&token| inside(token)) {
            squares += log_sum_exp(logits.row(token)).powi(2);
            for r in 0..ways {
                sums[r] += chances.row(token)[r];
                shares.data[r] += if way.data[token] == r as f64 { ways as f64 / all } else { 0.0 };
            }
        }
        let balance: f64 = shares.data.iter().zip(&sums).map(|(share, sum)| share * sum).sum();
        let loss = (f64::from(self.loss.aux) * balance + f64::from(self.loss.z) * squares) / all;
        Ok(vec![Array::scalar(loss), shares, Array::scalar(1.0 / all)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let batch = (cx.input_count() == 4).then(|| cx.input(3).numel());
        let mut dispatch = Dispatch::new(&BALANCE_LOSS).constant("LANES", 256u32).snippet(workgroup_reduction());
        // What is absent is not read, but a binding must be there.
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

/// The gradients of [`BalanceLoss`] by logits and chances. Inputs: logits (N, R), shares (R), counted, dloss, and lengths (B)
/// if they are there.
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
        let [tokens, ways] = logits.shape.expect("balance_loss, logits")?;
        let batch = inputs.get(4).map_or(1, |l| l.data.len());
        let (all, inside) = counted(batch, tokens / batch, inputs.get(4).copied());
        let factor = inputs[3].data[0] / all;
        let (aux, z) = (f64::from(self.loss.aux), f64::from(self.loss.z));
        let (mut dlogits, mut dchances) = (Array::zeros([tokens, ways]), Array::zeros([tokens, ways]));
        for token in (0..tokens).filter(|&token| inside(token)) {
            let lse = log_sum_exp(logits.row(token));
            for r in 0..ways {
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

/// See [`argmax_rows`].
#[derive(Debug)]
struct ArgmaxRows;

impl Op for ArgmaxRows {
    fn name(&self) -> &'static str {
        "argmax_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [rows, columns] = matrix(self.name(), "x", &inputs[0])?;
        if let Some(bias) = inputs.get(1) {
            expect(self.name(), "the bias", bias, &TensorType::f32([columns]))?;
        }
        Ok(vec![TensorType::new([rows], DType::U32)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let x = inputs[0];
        let value = |n: usize, r: usize| x.row(n)[r] + inputs.get(1).map_or(0.0, |bias| bias.data[r]);
        let best =
            |n: usize| (1..x.shape.last()).fold(0, |best, r| if value(n, r) > value(n, best) { r } else { best });
        Ok(vec![Array::from_fn([x.shape.rows()], |n| best(n) as f64)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, bias) = (cx.input(0), cx.input(cx.input_count() - 1));
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        if columns > cx.caps().most_turns() {
            return Err(Error::Unsupported {
                what: format!("argmax_rows of {columns} columns"),
                needs: format!("loops of more than {} turns", cx.caps().most_turns()),
                adapter: cx.caps().name.clone(),
                hint: "Find the largest of parts of the rows first, or use a GPU".into(),
            });
        }
        let dispatch = Dispatch::new(&ARGMAX_ROWS).read(x).read(bias).write(cx.output(0));
        let dispatch = dispatch.param(rows).param(columns).param(cx.input_count() - 1);
        cx.dispatch(dispatch.groups_for(rows, 64))
    }
}

/// `out[n] = x[n, index[n]]`; gradient: `dx[n, index[n]] = dout[n]`, zeros elsewhere.
#[derive(Debug)]
struct Pick;

impl Op for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [rows, _] = matrix(self.name(), "x", &inputs[0])?;
        expect(self.name(), "the index", &inputs[1], &TensorType::new([rows], DType::U32))?;
        Ok(vec![TensorType::f32([rows])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        let columns = cx.graph.shape(cx.inputs[0]).last();
        Ok(vec![Some(cx.graph.put1(PickBackward { columns }, &[cx.inputs[1], dout])?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, index) = (inputs[0], inputs[1]);
        let value = |n: usize| x.row(n).get(index.data[n] as usize).copied().unwrap_or(0.0);
        Ok(vec![Array::from_fn(index.shape.clone(), value)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let x = cx.input(0);
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let dispatch = Dispatch::new(&PICK).read(x).read(cx.input(1)).write(cx.output(0));
        cx.dispatch(dispatch.param(rows).param(columns).groups_for(rows, 64))
    }
}

/// The gradient of [`Pick`]. Inputs: index (N), dout (N).
#[derive(Debug)]
struct PickBackward {
    columns: usize,
}

impl Op for PickBackward {
    fn name(&self) -> &'static str {
        "pick_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32([inputs[0].shape.numel(), self.columns])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (index, dout) = (inputs[0], inputs[1]);
        Ok(vec![Array::from_fn([index.data.len(), self.columns], |i| {
            let (n, r) = (i / self.columns, (i % self.columns) as f64);
            if index.data[n] == r { dout.data[n] } else { 0.0 }
        })])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.output(0).numel();
        let dispatch = Dispatch::new(&PICK_BACKWARD).read(cx.input(0)).read(cx.input(1)).write(cx.output(0));
        cx.dispatch(dispatch.param(count).param(self.columns).groups_for(count, 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [2, 5], DType::F32)?;
        let way = g.input("way", [5], DType::U32)?;
        let loss = RouterLoss { aux: 1.0, z: 0.0 };
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(selection_loss(&mut g, logits, way, None, loss));
        assert_eq!(message, "selection_loss: inverse is u32[5], expected u32[10]");
        let message = refused(balance_loss(&mut g, logits, logits, way, None, loss));
        assert_eq!(message, "balance_loss: the way is u32[5], expected u32[2]");
        let message = refused(pick(&mut g, logits, way));
        assert_eq!(message, "pick: the index is u32[5], expected u32[2]");
        let message = refused(argmax_rows(&mut g, logits, Some(logits)));
        assert_eq!(message, "argmax_rows: the bias is f32[2, 5], expected f32[5]");
        Ok(())
    }
}
