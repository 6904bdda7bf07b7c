//! Cross-entropy of logits.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::arithmetic::activation::ACTIVATION_SNIPPET;
use crate::ops::attention::check_cap;
use crate::ops::rows::{RowVariant, elements, width, with_reduction};
use crate::shape::{Shape, TensorType};
use derive_setters::Setters;

static ROWS: [Kernel; 2] = [kernel!("loss/cross_entropy_threads"), kernel!("loss/cross_entropy_workgroup")];
static MEAN: Kernel = kernel!("loss/cross_entropy_mean");
static BACKWARD: Kernel = kernel!("loss/cross_entropy_backward");
static IN_PLACE: Kernel = kernel!("loss/cross_entropy_in_place");
static GRADIENT: Snippet = kernel!("common/cross_entropy_gradient");
static CAP: Snippet = kernel!("common/soft_cap");
static CAP_NONE: Snippet = kernel!("common/soft_cap_none");

/// Options beyond plain cross-entropy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct CrossEntropyOptions {
    /// ε in 0..1: the target is 1 − ε on the label and ε spread over all classes.
    pub label_smoothing: f32,
    /// c: adds c · lse², which keeps the logits' normaliser near 1 (PaLM, ST-MoE).
    pub z_loss: f32,
    /// c: the loss sees `c tanh(z / c)` in place of each logit z. Gemma Team, `Gemma 2`, 2024 (arXiv 2408.00118).
    pub soft_cap: Option<f32>,
}

/// Cross-entropy of logits, the mean over all rows that have a label, with label smoothing ε and a z-loss of weight c:
/// a scalar.
///
/// ```text
/// loss = scale · Σ_r [(1 − ε)(lse_r − z_label) + ε(lse_r − mean_v z_rv) + c lse_r²],  scale = 1 / rows with a label
/// dz_rv = dloss · scale · ((1 + 2c lse_r) e^(z_rv − lse_r) − (1 − ε)[v = label_r] − ε / V)
/// ```
///
/// With a soft cap these are the capped logits, and the gradient is multiplied by the slope of the cap.
///
/// logits z (…, V) f32, labels (…) i32; rows with a negative label are ignored. If all rows are ignored the loss is 0. A label of V or more
/// is an error of the reference; the GPU ignores its row.
///
/// # Errors
/// [`Error::Shape`] if the labels are not i32 of the logits' leading shape; [`Error::Input`] for options out of range.
pub fn cross_entropy(g: &mut Graph, logits: Tensor, labels: Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
    options.check()?;
    g.put1(CrossEntropy { options: *options, variant: None }, &[logits, labels])
}

impl CrossEntropyOptions {
    pub(in crate::ops) fn check(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let message = format!("{} is not in [0, 1)", self.label_smoothing);
            return Err(Error::input("label_smoothing", message));
        }
        if !(self.z_loss >= 0.0 && self.z_loss.is_finite()) {
            return Err(Error::input("z_loss", format!("{} is negative or not finite", self.z_loss)));
        }
        check_cap("cross_entropy soft_cap", self.soft_cap)
    }

    /// A logit as the loss sees it, and the slope of the cap there.
    fn capped(&self, z: f64) -> (f64, f64) {
        let Some(cap) = self.soft_cap.map(f64::from) else { return (z, 1.0) };
        let share = (z / cap).tanh();
        (cap * share, 1.0 - share * share)
    }

    /// The texts of the cap in front of a kernel.
    fn with_cap(&self, dispatch: Dispatch) -> Dispatch {
        match self.soft_cap {
            Some(cap) => dispatch.constant("SOFT_CAP", cap).snippet(&ACTIVATION_SNIPPET).snippet(&CAP),
            None => dispatch.snippet(&CAP_NONE),
        }
    }
}

/// See [`cross_entropy`]. Inputs: logits (…, V), labels (…). Outputs: loss (), lse (…), scale (); the last two for the
/// backward.
#[derive(Debug)]
pub(crate) struct CrossEntropy {
    /// Smoothing and z-loss.
    pub(crate) options: CrossEntropyOptions,
    /// The variant; the adapter's default if not given.
    pub(crate) variant: Option<RowVariant>,
}

impl Op for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (logits, labels) = (&inputs[0], &inputs[1]);
        let dims = logits.shape.dims();
        if logits.dtype != DType::F32 || dims.is_empty() || logits.shape.numel() == 0 {
            return Err(Error::shape("cross_entropy", format!("expected logits f32(…, classes), got {logits}")));
        }
        check_labels("cross_entropy", labels, &dims[..dims.len() - 1], "logits", logits)?;
        Ok(outputs(labels))
    }

    fn bounds(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        vec![(1, inputs[0].shape.last())]
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        only_the_loss(cx, "cross_entropy")?;
        let back = CrossEntropyBackward { options: self.options };
        let inputs = [cx.inputs[0], cx.inputs[1], cx.outputs[1], cx.outputs[2], cx.upstream(0)?];
        Ok(vec![Some(cx.graph.put1(back, &inputs)?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        forward_f64(inputs[0], inputs[1], &self.options)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (logits, labels) = (cx.input(0), cx.input(1));
        let losses = cx.scratch([labels.numel()], DType::F32);
        let rows = Rows { labels, lse: cx.output(1), losses, options: self.options, variant: self.variant };
        let classes = logits.shape.last();
        rows.launch(cx, logits, 0)?;
        rows.mean(cx, classes, cx.output(0), cx.output(2))
    }
}

/// The gradient of [`CrossEntropy`] with respect to the logits. Inputs: logits, labels, lse, scale, dloss.
#[derive(Debug)]
struct CrossEntropyBackward {
    options: CrossEntropyOptions,
}

impl Op for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let factor = inputs[3].data[0] * inputs[4].data[0];
        Ok(vec![backward_f64(inputs[0], inputs[1], inputs[2], factor, &self.options)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (logits, out) = (cx.input(0), cx.output(0));
        let classes = logits.shape.last();
        let mut dispatch = by_tiles(&BACKWARD, logits.shape.rows(), classes).read(logits);
        for index in 1..5 {
            dispatch = dispatch.read(cx.input(index));
        }
        cx.dispatch(self.options.params(dispatch.write(out)))
    }
}

impl CrossEntropyOptions {
    fn params(&self, dispatch: Dispatch) -> Dispatch {
        self.with_cap(dispatch).param_f32(self.label_smoothing).param_f32(self.z_loss)
    }
}

/// The row-wise parts of a loss whose logits may come in several pieces.
#[derive(Debug)]
pub(in crate::ops) struct Rows {
    /// (all rows) i32
    pub(super) labels: View,
    /// (all rows) f32, written
    pub(super) lse: View,
    /// (all rows) f32, written
    pub(super) losses: View,
    pub(super) options: CrossEntropyOptions,
    pub(super) variant: Option<RowVariant>,
}

impl Rows {
    /// Log-sum-exp and loss of the rows of `logits`, which begin at row `first_row`.
    pub(in crate::ops) fn launch(&self, cx: &mut Launch<'_>, logits: View, first_row: usize) -> Result<()> {
        let (rows, classes) = (logits.shape.rows(), logits.shape.last());
        let flops = 4 * logits.numel() as u64;
        let variant = RowVariant::choose(self.variant, cx.caps(), rows, classes);
        let dispatch = variant
            .over_rows(cx.caps(), &ROWS, rows, classes)
            .read(logits)
            .read(self.labels.clone())
            .update(self.lse.clone())
            .update(self.losses.clone())
            .param(first_row);
        cx.dispatch(self.options.params(dispatch).flops(flops))
    }

    /// The mean of the losses, and the weight of each row.
    pub(in crate::ops) fn mean(&self, cx: &mut Launch<'_>, classes: usize, loss: View, scale: View) -> Result<()> {
        let rows = self.labels.numel();
        cx.dispatch(
            with_reduction(Dispatch::new(&MEAN), cx.caps(), 256)
                .read(self.losses.clone())
                .read(self.labels.clone())
                .write(loss)
                .write(scale)
                .param(rows)
                .param(classes)
                .groups(1)
                .flops(rows as u64),
        )
    }
}

/// Turns logits into their gradient in place.
#[derive(Debug)]
pub(in crate::ops) struct InPlace {
    /// (all rows) i32
    pub(super) labels: View,
    /// (all rows) f32
    pub(super) lse: View,
    /// (1) f32
    pub(super) scale: View,
    /// (1) f32
    pub(super) upstream: View,
    pub(super) options: CrossEntropyOptions,
}

impl InPlace {
    /// For `logits` that begin at row `first_row`.
    pub(in crate::ops) fn launch(&self, cx: &mut Launch<'_>, logits: View, first_row: usize) -> Result<()> {
        let dispatch = by_tiles(&IN_PLACE, logits.shape.rows(), logits.shape.last())
            .read(self.labels.clone())
            .read(self.lse.clone())
            .read(self.scale.clone())
            .read(self.upstream.clone())
            .update(logits)
            .param(first_row);
        cx.dispatch(self.options.params(dispatch))
    }
}

/// A dispatch of workgroups over tiles of rows, with its first parameters: the columns in `Element`s and a row's tiles.
fn by_tiles(kernel: &'static Kernel, rows: usize, classes: usize) -> Dispatch {
    let width = width(classes);
    let columns = classes / width;
    let tiles = columns.div_ceil(512);
    let dispatch = Dispatch::new(kernel).snippet(elements(width)).snippet(&GRADIENT).param(columns).param(tiles);
    dispatch.groups(rows * tiles).flops(6 * (rows * classes) as u64)
}

/// The types of loss, lse and scale.
pub(in crate::ops) fn outputs(labels: &TensorType) -> Vec<TensorType> {
    vec![TensorType::f32(Shape::default()), TensorType::f32(labels.shape.clone()), TensorType::f32(Shape::default())]
}

pub(in crate::ops) fn check_labels(
    op: &str,
    labels: &TensorType,
    leading: &[usize],
    operand: &str,
    ty: &TensorType,
) -> Result<()> {
    if labels.dtype != DType::I32 || labels.shape.dims() != leading {
        let what = format!("{operand} {ty} need labels i32{}, got {labels}", Shape::from(leading));
        return Err(Error::shape(op, what));
    }
    Ok(())
}

/// The log-sum-exps and the scale are only for the backward pass.
pub(in crate::ops) fn only_the_loss(cx: &Gradient<'_>, op: &str) -> Result<()> {
    let others = cx.upstream[1..].iter().any(Option::is_some);
    if others { Err(Error::NotDifferentiable { op: format!("{op} (outputs other than the loss)") }) } else { Ok(()) }
}

/// Loss, lse and scale in f64.
pub(in crate::ops) fn forward_f64(logits: &Array, labels: &Array, options: &CrossEntropyOptions) -> Result<Vec<Array>> {
    let classes = logits.shape.last();
    let (smoothing, z_loss) = (f64::from(options.label_smoothing), f64::from(options.z_loss));
    let mut lse = Array::zeros(labels.shape.clone());
    let (mut loss, mut count) = (0.0, 0.0);
    for (row, &label) in labels.data.iter().enumerate() {
        let z: Vec<f64> = logits.row(row).iter().map(|z| options.capped(*z).0).collect();
        let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        lse.data[row] = log_sum;
        if label >= classes as f64 {
            let message = format!("labels[{row}] = {label} is out of range: there are {classes} classes");
            return Err(Error::input("labels", message));
        }
        if label >= 0.0 {
            let mean = z.iter().sum::<f64>() / classes as f64;
            loss += (1.0 - smoothing) * (log_sum - z[label as usize]) + smoothing * (log_sum - mean);
            loss += z_loss * log_sum * log_sum;
            count += 1.0;
        }
    }
    let scale = if count > 0.0 { 1.0 / count } else { 0.0 };
    Ok(vec![Array::scalar(loss * scale), lse, Array::scalar(scale)])
}

/// The gradient with respect to the logits in f64.
pub(in crate::ops) fn backward_f64(
    logits: &Array,
    labels: &Array,
    lse: &Array,
    factor: f64,
    options: &CrossEntropyOptions,
) -> Array {
    let (smoothing, z_loss) = (f64::from(options.label_smoothing), f64::from(options.z_loss));
    let classes = logits.shape.last();
    let mut out = Array::zeros(logits.shape.clone());
    for (row, (&label, &lse)) in labels.data.iter().zip(&lse.data).enumerate() {
        if label < 0.0 {
            continue;
        }
        for (class, (out, z)) in out.row_mut(row).iter_mut().zip(logits.row(row)).enumerate() {
            let hit = if class == label as usize { 1.0 - smoothing } else { 0.0 };
            let (z, slope) = options.capped(*z);
            let probability = (1.0 + 2.0 * z_loss * lse) * (z - lse).exp();
            *out = slope * factor * (probability - hit - smoothing / classes as f64);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [2, 3, 5], DType::F32)?;
        let labels = g.input("labels", [2, 5], DType::I32)?;
        let options = CrossEntropyOptions::default();
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(cross_entropy(&mut g, logits, labels, &options));
        assert_eq!(message, "cross_entropy: logits f32[2, 3, 5] need labels i32[2, 3], got i32[2, 5]");
        let options = CrossEntropyOptions { label_smoothing: 1.0, ..Default::default() };
        let message = refused(cross_entropy(&mut g, logits, labels, &options));
        assert_eq!(message, "label_smoothing: 1 is not in [0, 1)");
        let options = CrossEntropyOptions { soft_cap: Some(0.0), ..Default::default() };
        let message = refused(cross_entropy(&mut g, logits, labels, &options));
        assert_eq!(message, "cross_entropy soft_cap: 0 is not between 1e-30 and 1e30 (use None for no cap)");
        Ok(())
    }

    #[test]
    fn a_label_out_of_range_is_named() -> Result<()> {
        let labels = Array::new([2], vec![-100.0, 5.0])?;
        let result = forward_f64(&Array::zeros([2, 5]), &labels, &CrossEntropyOptions::default());
        let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "labels: labels[1] = 5 is out of range: there are 5 classes");
        Ok(())
    }

    #[test]
    fn uniform_logits_cost_the_logarithm_of_the_classes() -> Result<()> {
        let labels = Array::new([3], vec![0.0, -1.0, 4.0])?;
        let options = CrossEntropyOptions { label_smoothing: 0.3, ..Default::default() };
        let found = forward_f64(&Array::zeros([3, 5]), &labels, &options)?;
        assert!((found[0].data[0] - 5_f64.ln()).abs() < 1e-15);
        assert_eq!(found[2].data[0], 0.5);
        Ok(())
    }
}
