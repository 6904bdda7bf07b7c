//! Layer norm and RMS norm, alone and with a fused residual add.

use super::norm_gain::{NormGainBackward, check_stats};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Add, Array, Gradient, Graph, Op, Rematerialization, RematerializeInput, Tensor};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, kernel};
use crate::ops::rows::{self, RowVariant};
use crate::shape::TensorType;
use std::any::Any;
use std::sync::Arc;

static NORM: [Kernel; 2] = [kernel!("norm/norm_threads"), kernel!("norm/norm_workgroup")];
static NORM_REGISTERS: Kernel = kernel!("norm/norm_registers");
static NORM_BACKWARD: [Kernel; 2] = [kernel!("norm/norm_backward_threads"), kernel!("norm/norm_backward_workgroup")];

/// `out = (x − μ) r gain + bias` with `r = 1 / √(mean (x − μ)² + eps)`, μ the mean of the row: `x` (…, C), `gain` (C),
/// `bias` (C) if there is one, all f32.
///
/// Gradients, with `x̂ = (x − μ) r` and `g = gain dout`: `dx = r (g − x̂ mean(x̂ g) − mean(g))`, `dgain = Σ_rows dout
/// x̂`, `dbias = Σ_rows dout`. μ and r are kept for the backward pass.
///
/// Ba et al., `Layer Normalization`, 2016 (arXiv 1607.06450).
///
/// # Errors
/// [`Error::Shape`] if gain or bias are not as long as the last axis of `x`, a type is not f32 or `eps` is not
/// positive.
pub fn layer_norm(g: &mut Graph, x: Tensor, gain: Tensor, bias: Option<Tensor>, eps: f32) -> Result<Tensor> {
    Ok(norm(g, NormKind::new(true, eps), x, None, gain, bias)?.1)
}

/// `out = x r gain` with `r = 1 / √(mean x² + eps)`, the mean being that of the row: `x` (…, C), `gain` (C), f32.
///
/// Gradients, with `x̂ = x r` and `g = gain dout`: `dx = r (g − x̂ mean(x̂ g))`, `dgain = Σ_rows dout x̂`.
///
/// Zhang and Sennrich, `Root Mean Square Layer Normalization`, 2019 (arXiv 1910.07467).
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(g: &mut Graph, x: Tensor, gain: Tensor, eps: f32) -> Result<Tensor> {
    Ok(norm(g, NormKind::new(false, eps), x, None, gain, None)?.1)
}

/// [`rms_norm`] with the gain `1 + weight`, as Gemma has it: `weight` (C) is the gain's difference from 1, and has the gain's gradient.
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm_plus_one(g: &mut Graph, x: Tensor, weight: Tensor, eps: f32) -> Result<Tensor> {
    Ok(norm(g, NormKind { plus_one: true, ..NormKind::new(false, eps) }, x, None, weight, None)?.1)
}

/// `sum = x + residual` and its [`layer_norm`], in one kernel; returns both. Gradients: `dx = dresidual` = that of the norm, plus `dsum`.
///
/// # Errors
/// As [`layer_norm`], and if `x` and `residual` differ.
pub fn add_layer_norm(
    g: &mut Graph,
    x: Tensor,
    residual: Tensor,
    gain: Tensor,
    bias: Option<Tensor>,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    norm(g, NormKind::new(true, eps), x, Some(residual), gain, bias)
}

/// `sum = x + residual` and its [`rms_norm`], in one kernel; returns both. Gradients as in [`add_layer_norm`].
///
/// # Errors
/// As [`add_layer_norm`].
pub fn add_rms_norm(g: &mut Graph, x: Tensor, residual: Tensor, gain: Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    norm(g, NormKind::new(false, eps), x, Some(residual), gain, None)
}

/// The kind of a norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormKind {
    /// Layer norm, which subtracts the mean; else RMS norm.
    pub(crate) centered: bool,
    /// The gain is 1 + what is stored.
    pub(crate) plus_one: bool,
    /// Added to the variance or mean square.
    pub(crate) eps: f32,
    /// The variant; the adapter's default if not given.
    pub(crate) variant: Option<RowVariant>,
}

impl NormKind {
    /// The kind with the stored gain and the adapter's variant.
    pub(crate) fn new(centered: bool, eps: f32) -> Self {
        Self { centered, plus_one: false, eps, variant: None }
    }

    /// The gain that is meant by a stored one.
    fn gain(self, stored: f64) -> f64 {
        if self.plus_one { 1.0 + stored } else { stored }
    }
}

/// Adds a norm to the graph; returns its input (the sum, if there is a residual) and its result.
pub(crate) fn norm(
    g: &mut Graph,
    kind: NormKind,
    x: Tensor,
    residual: Option<Tensor>,
    gain: Tensor,
    bias: Option<Tensor>,
) -> Result<(Tensor, Tensor)> {
    let inputs: Vec<Tensor> = [Some(x), residual, Some(gain), bias].into_iter().flatten().collect();
    let op = Norm { kind, residual: residual.is_some(), bias: bias.is_some() };
    let outputs = g.put(op, &inputs)?;
    Ok((outputs.get(2).copied().unwrap_or(x), outputs[0]))
}

/// See [`layer_norm`], [`rms_norm`], [`add_layer_norm`] and [`add_rms_norm`]. Inputs: x (…, C), residual like x if
/// there is one, gain (C), bias (C) if there is one. Outputs: `out` (…, C), the pairs (μ, r) as (rows, 2), which the
/// backward pass reads, μ being 0 without a mean, and with a residual the sum.
#[derive(Debug)]
struct Norm {
    kind: NormKind,
    residual: bool,
    bias: bool,
}

impl Norm {
    /// Where gain is among the inputs.
    fn gain(&self) -> usize {
        1 + usize::from(self.residual)
    }
}

impl Op for Norm {
    fn name(&self) -> &'static str {
        match (self.kind.centered, self.residual) {
            (true, false) => "layer_norm",
            (true, true) => "add_layer_norm",
            (false, false) => "rms_norm",
            (false, true) => "add_rms_norm",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (name, count) = (self.name(), self.gain() + 1 + usize::from(self.bias));
        if inputs.len() != count {
            return Err(Error::shape(name, format!("expected {count} tensors, got {}", inputs.len())));
        }
        let x = rows::same_f32(name, &inputs[..self.gain()], self.gain())?.remove(0);
        rows::has_rows(name, &x)?;
        for (vector, what) in inputs[self.gain()..].iter().zip(["gain", "bias"]) {
            if *vector != TensorType::f32([x.shape.last()]) {
                return Err(Error::shape(name, format!("the {what} {vector} does not fit the last axis of {x}")));
            }
        }
        if !(self.kind.eps > 0.0 && self.kind.eps.is_finite()) {
            return Err(Error::shape(name, format!("eps must be positive, got {}", self.kind.eps)));
        }
        let stats = TensorType::f32([x.shape.rows(), 2]);
        Ok(if self.residual { vec![x.clone(), stats, x] } else { vec![x, stats] })
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut found = vec![None; cx.inputs.len()];
        let dsum = cx.upstream.get(2).copied().flatten();
        let Some(dout) = cx.upstream[0] else {
            found[..self.gain()].fill(dsum);
            return Ok(found);
        };
        let x = cx.outputs.get(2).copied().unwrap_or(cx.inputs[0]);
        let (stats, gain) = (cx.outputs[1], self.gain());
        if cx.needed[..gain].contains(&true) {
            let op = NormBackward { kind: self.kind, residual: dsum.is_some() };
            let inputs: Vec<Tensor> =
                [Some(x), Some(stats), Some(cx.inputs[gain]), Some(dout), dsum].into_iter().flatten().collect();
            let ds = cx.graph.put1(op, &inputs)?;
            found[..gain].fill(Some(ds));
        }
        if cx.needed[gain..].contains(&true) {
            let outputs = cx.graph.put(NormGainBackward { bias: self.bias }, &[x, stats, dout])?;
            for (slot, gradient) in found[gain..].iter_mut().zip(outputs) {
                *slot = Some(gradient);
            }
        }
        Ok(found)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let gain = inputs[self.gain()];
        let sum = if self.residual { inputs[0].zip(inputs[1], |a, b| a + b) } else { inputs[0].clone() };
        let (rows, columns) = (sum.shape.rows(), sum.shape.last());
        let mut out = sum.clone();
        let mut stats = Array::zeros([rows, 2]);
        for row in 0..rows {
            let s = sum.row(row);
            let mean = if self.kind.centered { s.iter().sum::<f64>() / columns as f64 } else { 0.0 };
            let square = s.iter().map(|s| (s - mean) * (s - mean)).sum::<f64>() / columns as f64;
            let rstd = 1.0 / (square + f64::from(self.kind.eps)).sqrt();
            stats.row_mut(row).copy_from_slice(&[mean, rstd]);
            for (c, y) in out.row_mut(row).iter_mut().enumerate() {
                *y = (s[c] - mean) * rstd * self.kind.gain(gain.data[c])
                    + if self.bias { inputs[self.gain() + 1].data[c] } else { 0.0 };
            }
        }
        Ok(if self.residual { vec![out, stats, sum] } else { vec![out, stats] })
    }

    fn rematerialize(&self, index: usize) -> Option<Rematerialization> {
        if index != 0 {
            return None;
        }
        let normed = if self.residual { RematerializeInput::Output(2) } else { RematerializeInput::Input(0) };
        let vectors = self.gain()..=self.gain() + usize::from(self.bias);
        let from = std::iter::once(normed).chain(vectors.map(RematerializeInput::Input)).collect();
        Some(Rematerialization { op: Arc::new(Self { residual: false, ..*self }), from })
    }

    fn prologue(&self, producer: &dyn Op, index: usize) -> Option<Arc<dyn Op>> {
        let sum = (producer as &dyn Any).is::<Add>() && index == 0 && !self.residual;
        sum.then(|| Arc::new(Self { residual: true, ..*self }) as Arc<dyn Op>)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let gain = cx.input(self.gain());
        // A binding that a constant disables still needs a buffer.
        let residual = if self.residual { cx.input(1) } else { x.clone() };
        let bias = if self.bias { cx.input(self.gain() + 1) } else { gain.clone() };
        let sum = if self.residual { cx.output(2) } else { cx.scratch([8], DType::F32) };
        let held = if self.kind.variant.is_none() { in_registers(cx.caps(), rows, columns) } else { None };
        let dispatch = held.unwrap_or_else(|| {
            let variant = RowVariant::choose(self.kind.variant, cx.caps(), rows, columns);
            variant.over_rows(cx.caps(), &NORM, rows, columns)
        });
        let dispatch = dispatch.param_f32(self.kind.eps);
        let dispatch = dispatch.constant("CENTERED", self.kind.centered).constant("BIAS", self.bias);
        let dispatch = dispatch
            .constant("PLUS_ONE", self.kind.plus_one)
            .constant("RESIDUAL", self.residual)
            .flops(8 * x.numel() as u64);
        let dispatch = dispatch.read(x).read(residual).read(gain).read(bias);
        cx.dispatch(dispatch.write(out).write(cx.output(1)).write(sum))
    }
}

/// A dispatch of `norm_registers`, for adapters that store lane by lane and rows that fit: up to 16 blocks of eight columns per lane, since
/// the driver's code grows with them, and at least as many rows as lanes.
fn in_registers(caps: &Caps, rows: usize, columns: usize) -> Option<Dispatch> {
    let lanes = caps.subgroup.filter(|_| caps.class == AdapterClass::Cpu && caps.int64)?;
    let block = 8 * lanes as usize;
    if !columns.is_multiple_of(block) || columns > 16 * block || rows < lanes as usize {
        return None;
    }
    // Gain and bias are read once per workgroup, but every core needs workgroups.
    let share = (rows / 64).clamp(4, 16);
    let dispatch = Dispatch::new(&NORM_REGISTERS).constant("LANES", lanes).constant("HELD", (columns / block) as u32);
    Some(dispatch.param(rows).param(share).groups(rows.div_ceil(share)))
}

/// The gradient of [`Norm`] with respect to its input. Inputs: the norm's input, (μ, r), gain, dout, and dsum if there is one.
#[derive(Clone, Copy, Debug)]
struct NormBackward {
    kind: NormKind,
    residual: bool,
}

impl Op for NormBackward {
    fn name(&self) -> &'static str {
        if self.kind.centered { "layer_norm_backward" } else { "rms_norm_backward" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let count = 4 + usize::from(self.residual);
        if inputs.len() != count {
            return Err(Error::shape(self.name(), format!("expected {count} tensors, got {}", inputs.len())));
        }
        let whole: Vec<TensorType> = [&inputs[..1], &inputs[3..]].concat();
        let types = rows::same_f32(self.name(), &whole, count - 2)?;
        check_stats(self.name(), &types[0], &inputs[1])?;
        if inputs[2] != TensorType::f32([types[0].shape.last()]) {
            return Err(Error::shape(self.name(), format!("the gain {} does not fit {}", inputs[2], types[0])));
        }
        Ok(types)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, stats, gain, mut out) = (inputs[0], inputs[1], inputs[2], inputs[3].clone());
        let columns = x.shape.last() as f64;
        for row in 0..x.shape.rows() {
            let (mean, rstd) = (stats.data[2 * row], stats.data[2 * row + 1]);
            let normed: Vec<f64> = x.row(row).iter().map(|x| (x - mean) * rstd).collect();
            let d = out.row_mut(row);
            d.iter_mut().zip(&gain.data).for_each(|(d, gain)| *d *= self.kind.gain(*gain));
            let c1 = d.iter().zip(&normed).map(|(d, n)| d * n).sum::<f64>() / columns;
            let c2 = if self.kind.centered { d.iter().sum::<f64>() / columns } else { 0.0 };
            d.iter_mut().zip(&normed).for_each(|(d, n)| *d = rstd * (*d - n * c1 - c2));
        }
        Ok(vec![if self.residual { out.zip(inputs[4], |d, dsum| d + dsum) } else { out }])
    }

    fn epilogue(&self, consumer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        let sum = (consumer as &dyn Any).is::<Add>() && !self.residual;
        sum.then(|| Arc::new(Self { residual: true, ..*self }) as Arc<dyn Op>)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, dout, out) = (cx.input(0), cx.input(3), cx.output(0));
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let dsum = if self.residual { cx.input(4) } else { dout.clone() };
        let variant = RowVariant::choose(self.kind.variant, cx.caps(), rows, columns);
        let dispatch = variant.over_rows(cx.caps(), &NORM_BACKWARD, rows, columns);
        let dispatch = dispatch.constant("CENTERED", self.kind.centered).constant("RESIDUAL", self.residual);
        let dispatch = dispatch
            .constant("PLUS_ONE", self.kind.plus_one)
            .flops(12 * x.numel() as u64)
            .read(x)
            .read(cx.input(1))
            .read(cx.input(2));
        cx.dispatch(dispatch.read(dout).read(dsum).write(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_which_operand() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32).unwrap();
        let gain = g.input("gain", [3], DType::F32).unwrap();
        let wrong = g.input("wrong", [2], DType::F32).unwrap();
        let message = layer_norm(&mut g, x, wrong, None, 1e-5).unwrap_err().to_string();
        assert!(message.contains("the gain f32[2]") && message.contains("[2, 3]"), "{message}");
        let message = layer_norm(&mut g, x, gain, Some(wrong), 1e-5).unwrap_err().to_string();
        assert!(message.contains("the bias f32[2]"), "{message}");
        let message = add_rms_norm(&mut g, x, gain, gain, 1e-5).unwrap_err().to_string();
        assert!(message.contains("add_rms_norm") && message.contains("f32[3]"), "{message}");
        for eps in [0.0, -1.0, f32::NAN] {
            let message = rms_norm(&mut g, x, gain, eps).unwrap_err().to_string();
            assert!(message.contains("eps must be positive"), "{message}");
        }
    }

    #[test]
    fn a_sum_alone_passes_its_gradient_on() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32).unwrap();
        let y = g.input("y", [2, 3], DType::F32).unwrap();
        let gain = g.input("gain", [3], DType::F32).unwrap();
        let (sum, _) = add_rms_norm(&mut g, x, y, gain, 1e-5).unwrap();
        let grads = g.differentiate_from(&[(sum, x)], &[x, y, gain]).unwrap();
        assert_eq!(grads, [Some(x), Some(x), None]);
    }
}
