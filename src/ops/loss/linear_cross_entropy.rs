//! Cross-entropy fused with the output projection: the logits of all rows are never in memory at once.

use super::cross_entropy::{
    CrossEntropyOptions, InPlace, Rows, backward_f64, check_labels, cross_entropy, forward_f64, only_the_loss, outputs,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, View, kernel};
use crate::ops::matmul::{Form, Matmul, Operands, WeightLayout, linear};
use crate::ops::rows::{elements, width};
use crate::shape::{Shape, TensorType};

static COLUMN_ACCUMULATE: Kernel = kernel!("loss/column_accumulate");

/// Rows of a chunk are a multiple of this, so that chunks begin at aligned offsets and fill the tiles of products.
const STEP: usize = 64;

/// Logits of up to this many bytes are kept: that costs no more memory than a chunk and avoids computing them twice.
const SMALL: u64 = 16 << 20;

/// [`cross_entropy`](super::cross_entropy()) of the logits `x · W + bias` without storing all of them: they are
/// computed a chunk of rows at a time, in the backward pass again.
///
/// x (…, C) f32, weight (C, V) or (V, C) as `layout` says, f32, f16, bf16 or quantised, bias (V) f32, labels (…) i32.
/// Where all logits fit 16 MiB they are stored: that is faster.
///
/// Gradients, with G the gradient with respect to the logits: `dx = G · Wᵀ`, `dW = xᵀ · G` (or its transpose), `dbias = Σ_rows G`;
/// chunks sum up in ascending order. dW is f32 whatever W is stored in.
///
/// After Hsu et al., `Liger Kernel: Efficient Triton Kernels for LLM Training`, 2024 (arXiv 2410.10989).
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together; [`Error::Input`] for options out of range.
pub fn linear_cross_entropy(
    g: &mut Graph,
    x: Tensor,
    weight: Tensor,
    bias: Option<Tensor>,
    layout: WeightLayout,
    labels: Tensor,
    options: &CrossEntropyOptions,
) -> Result<Tensor> {
    options.check()?;
    let op = LinearCrossEntropy { options: *options, layout, bias: bias.is_some(), rows: None };
    let inputs: Vec<Tensor> = [x, weight, labels].into_iter().chain(bias).collect();
    let types: Vec<TensorType> = inputs.iter().map(|&t| g.ty(t).clone()).collect();
    op.infer(&types)?;
    let classes = op.sizes(&types[0].shape, &types[1].shape)[1];
    if DType::F32.bytes(types[2].shape.numel().saturating_mul(classes)) <= SMALL {
        let logits = linear(g, x, weight, bias, layout)?;
        return cross_entropy(g, logits, labels, options);
    }
    g.put1(op, &inputs)
}

/// See [`linear_cross_entropy`]. Inputs: x (…, C), weight, labels (…), bias (V) if there is one. Outputs: loss (), lse
/// (…), scale ().
#[derive(Clone, Debug)]
pub(crate) struct LinearCrossEntropy {
    /// Smoothing and z-loss.
    pub(crate) options: CrossEntropyOptions,
    /// The layout of the weight.
    pub(crate) layout: WeightLayout,
    /// Whether a bias is the last input.
    pub(crate) bias: bool,
    /// Rows of a chunk, rounded up to a multiple of 64; by the adapter's memory if not given.
    pub(crate) rows: Option<usize>,
}

impl LinearCrossEntropy {
    /// Columns of x, and classes.
    fn sizes(&self, x: &Shape, weight: &Shape) -> [usize; 2] {
        let classes = match self.layout {
            WeightLayout::InOut => weight.last(),
            WeightLayout::OutIn => weight.rows(),
        };
        [x.last(), classes]
    }

    /// The chunks of `rows` rows: first row and length.
    fn chunks(&self, caps: &Caps, rows: usize, classes: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let length = self.rows.unwrap_or_else(|| {
            let most = if caps.class == AdapterClass::Gpu { 256 << 20 } else { 64 << 20 };
            let bytes = caps.max_binding_bytes.min(caps.max_buffer_bytes).min(most);
            (bytes / DType::F32.bytes(classes)) as usize / STEP * STEP
        });
        let length = length.next_multiple_of(STEP).max(STEP);
        (0..rows).step_by(length).map(move |first| (first, length.min(rows - first)))
    }

    /// `logits = x · W + bias` for some rows.
    fn project(&self, cx: &mut Launch<'_>, x: View, weight: View, bias: Option<View>, logits: View) -> Result<()> {
        let op = Matmul { name: "linear_cross_entropy", bias: self.bias, ..Matmul::new(self.layout.form()) };
        op.launch_on(cx, &Operands { bias, ..Operands::new(x, weight, logits) })
    }
}

/// A range of rows of a tensor (…, C) as a matrix.
fn some_rows(x: &View, first: usize, rows: usize) -> View {
    let columns = x.shape.last();
    View { start: x.start + first * columns, shape: [rows, columns].into(), ..x.clone() }
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, weight, labels) = (&inputs[0], &inputs[1], &inputs[2]);
        let refuse = |what: String| Err(Error::shape("linear_cross_entropy", what));
        let dims = x.shape.dims();
        if x.dtype != DType::F32 || dims.is_empty() || x.shape.numel() == 0 {
            return refuse(format!("expected x f32(…, C), got {x}"));
        }
        let columns = match (self.layout, weight.shape.dims()) {
            (WeightLayout::InOut, &[columns, classes]) | (WeightLayout::OutIn, &[classes, columns]) if classes > 0 => {
                Some(columns)
            }
            _ => None,
        };
        if columns != Some(x.shape.last()) || !weight.dtype.is_weight() {
            return refuse(format!("x {x} and the weight {weight} ({:?}) do not fit together", self.layout));
        }
        check_labels("linear_cross_entropy", labels, &dims[..dims.len() - 1], "x", x)?;
        let [_, classes] = self.sizes(&x.shape, &weight.shape);
        if self.bias && inputs.get(3) != Some(&TensorType::f32([classes])) {
            return refuse(format!("the bias must be f32[{classes}], got {:?}", inputs.get(3)));
        }
        Ok(outputs(labels))
    }

    fn bounds(&self, inputs: &[TensorType]) -> Vec<(usize, usize)> {
        let [_, classes] = self.sizes(&inputs[0].shape, &inputs[1].shape);
        vec![(2, classes)]
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        only_the_loss(cx, "linear_cross_entropy")?;
        let bias = if self.bias { cx.needed.get(3).copied().unwrap_or(false) } else { false };
        let back = LinearCrossEntropyBackward { forward: self.clone(), wanted: [cx.needed[0], cx.needed[1], bias] };
        let mut inputs = vec![cx.inputs[0], cx.inputs[1], cx.inputs[2], cx.outputs[1], cx.outputs[2], cx.upstream(0)?];
        inputs.extend(cx.inputs.get(3));
        let wanted = back.wanted;
        let mut found = cx.graph.put(back, &inputs)?.into_iter();
        let [dx, dweight, dbias] = wanted.map(|wanted| if wanted { found.next() } else { None });
        let mut gradients = vec![dx, dweight, None];
        if self.bias {
            gradients.push(dbias);
        }
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let logits = self.logits_f64(inputs[0], inputs[1], inputs.get(3).copied())?;
        forward_f64(&logits, inputs[2], &self.options)
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, weight, labels) = (cx.input(0), cx.input(1), cx.input(2));
        let bias = self.bias.then(|| cx.input(3));
        let [_, classes] = self.sizes(&x.shape, &weight.shape);
        let count = labels.numel();
        let chunks: Vec<(usize, usize)> = self.chunks(cx.caps(), count, classes).collect();
        let logits = cx.scratch([chunks[0].1, classes], DType::F32);
        let losses = cx.scratch([count], DType::F32);
        let rows = Rows { labels, lse: cx.output(1), losses, options: self.options, variant: None };
        for (first, length) in chunks {
            let chunk = some_rows(&logits, 0, length);
            self.project(cx, some_rows(&x, first, length), weight.clone(), bias.clone(), chunk.clone())?;
            rows.launch(cx, chunk, first)?;
        }
        rows.mean(cx, classes, cx.output(0), cx.output(2))
    }
}

impl LinearCrossEntropy {
    fn logits_f64(&self, x: &Array, weight: &Array, bias: Option<&Array>) -> Result<Array> {
        let rows = x.shape.rows();
        let flat = x.reshape([rows, x.shape.last()])?;
        let op = Matmul { bias: bias.is_some(), ..Matmul::new(self.layout.form()) };
        let inputs: Vec<&Array> = [&flat, weight].into_iter().chain(bias).collect();
        Ok(op.reference(&inputs)?.remove(0))
    }
}

/// The gradients of [`LinearCrossEntropy`].
///
/// Inputs: x, weight, labels, lse, scale, dloss, and the bias if there is one. Outputs: those wanted of dx, dweight, dbias.
#[derive(Debug)]
pub(crate) struct LinearCrossEntropyBackward {
    forward: LinearCrossEntropy,
    wanted: [bool; 3],
}

impl LinearCrossEntropyBackward {
    fn pick<T>(&self, all: [T; 3]) -> Vec<T> {
        all.into_iter().zip(self.wanted).filter_map(|(one, wanted)| wanted.then_some(one)).collect()
    }

    /// Forms of `dx = G · op(W)` and of dW, and whether dW is `Gᵀ · x` (else `xᵀ · G`).
    fn forms(&self) -> (Form, bool) {
        match self.forward.layout {
            WeightLayout::InOut => (Form::Nt, false),
            WeightLayout::OutIn => (Form::Nn, true),
        }
    }
}

impl Op for LinearCrossEntropyBackward {
    fn name(&self) -> &'static str {
        "linear_cross_entropy_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [_, classes] = self.forward.sizes(&inputs[0].shape, &inputs[1].shape);
        let dweight = TensorType::f32(inputs[1].shape.clone());
        Ok(self.pick([inputs[0].clone(), dweight, TensorType::f32([classes])]))
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, weight) = (inputs[0], inputs[1]);
        let logits = self.forward.logits_f64(x, weight, inputs.get(6).copied())?;
        let factor = inputs[4].data[0] * inputs[5].data[0];
        let gradient = backward_f64(&logits, inputs[2], inputs[3], factor, &self.forward.options);
        let x_rows = x.reshape([x.shape.rows(), x.shape.last()])?;
        let (form, gradient_first) = self.forms();
        let dx = Matmul::new(form).reference(&[&gradient, weight])?.remove(0).reshape(x.shape.clone())?;
        let (left, right) = if gradient_first { (&gradient, &x_rows) } else { (&x_rows, &gradient) };
        let dweight = Matmul::new(Form::Tn).reference(&[left, right])?.remove(0);
        let mut dbias = Array::zeros([gradient.shape.last()]);
        for row in 0..gradient.shape.rows() {
            dbias.data.iter_mut().zip(gradient.row(row)).for_each(|(sum, g)| *sum += g);
        }
        Ok(self.pick([dx, dweight, dbias]))
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let forward = &self.forward;
        let (x, weight, labels) = (cx.input(0), cx.input(1), cx.input(2));
        let bias = forward.bias.then(|| cx.input(6));
        let in_place = InPlace {
            labels: labels.clone(),
            lse: cx.input(3),
            scale: cx.input(4),
            upstream: cx.input(5),
            options: forward.options,
        };
        let [_, classes] = forward.sizes(&x.shape, &weight.shape);
        let chunks: Vec<(usize, usize)> = forward.chunks(cx.caps(), labels.numel(), classes).collect();
        let logits = cx.scratch([chunks[0].1, classes], DType::F32);
        for (first, length) in chunks {
            let (x_rows, chunk) = (some_rows(&x, first, length), some_rows(&logits, 0, length));
            forward.project(cx, x_rows.clone(), weight.clone(), bias.clone(), chunk.clone())?;
            in_place.launch(cx, chunk.clone(), first)?;
            self.launch_products(cx, &x_rows, &weight, &chunk, first)?;
        }
        Ok(())
    }
}

impl LinearCrossEntropyBackward {
    /// The wanted gradients from the gradient with respect to the logits of a chunk.
    fn launch_products(
        &self,
        cx: &mut Launch<'_>,
        x: &View,
        weight: &View,
        gradient: &View,
        first: usize,
    ) -> Result<()> {
        let mut outputs = (0..).map(|index| cx.output(index));
        let [dx, dweight, dbias] = self.wanted.map(|wanted| if wanted { outputs.next() } else { None });
        drop(outputs);
        let (form, gradient_first) = self.forms();
        let accumulate = first > 0;
        if let Some(dx) = dx {
            let out = some_rows(&dx, first, gradient.shape.rows());
            let op = Matmul { name: "linear_cross_entropy_dx", ..Matmul::new(form) };
            op.launch_on(cx, &Operands::new(gradient.clone(), weight.clone(), out))?;
        }
        if let Some(dweight) = dweight {
            let (left, right) = if gradient_first { (gradient, x) } else { (x, gradient) };
            let op = Matmul { name: "linear_cross_entropy_dw", ..Matmul::new(Form::Tn) };
            let operands = Operands::new(left.clone(), right.clone(), dweight);
            op.launch_on(cx, &Operands { accumulate, ..operands })?;
        }
        match dbias {
            Some(dbias) => column_accumulate(cx, gradient, dbias, accumulate),
            None => Ok(()),
        }
    }
}

/// `out = Σ_rows x`, or added to `out`.
fn column_accumulate(cx: &mut Launch<'_>, x: &View, out: View, accumulate: bool) -> Result<()> {
    let (rows, columns) = (x.shape.rows(), x.shape.last());
    let width = width(columns);
    let dispatch = Dispatch::new(&COLUMN_ACCUMULATE)
        .constant("ACCUMULATE", accumulate)
        .snippet(elements(width))
        .read(x.clone())
        .param(rows)
        .param(columns / width);
    let dispatch = if accumulate { dispatch.update(out) } else { dispatch.write(out) };
    cx.dispatch(dispatch.groups_for(columns / width, 64).flops(x.numel() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(rows: Option<usize>) -> LinearCrossEntropy {
        let options = CrossEntropyOptions::default();
        LinearCrossEntropy { options, layout: WeightLayout::OutIn, bias: false, rows }
    }

    #[test]
    fn chunks_cover_all_rows_within_the_budget() {
        let caps = Caps::baseline();
        let chunks: Vec<_> = op(None).chunks(&caps, 4096, 50257).collect();
        assert!(chunks.iter().all(|&(first, rows)| first % STEP == 0 && DType::F32.bytes(rows * 50257) <= 128 << 20));
        assert_eq!(chunks.iter().map(|c| c.1).sum::<usize>(), 4096);
        assert_eq!(op(Some(10)).chunks(&caps, 130, 5).collect::<Vec<_>>(), [(0, 64), (64, 64), (128, 2)]);
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, 3], DType::F32)?;
        let weight = g.input("weight", [3, 7], DType::F32)?;
        let labels = g.input("labels", [4], DType::I32)?;
        let options = CrossEntropyOptions::default();
        let result = linear_cross_entropy(&mut g, x, weight, None, WeightLayout::OutIn, labels, &options);
        let message = result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let expected = "linear_cross_entropy: x f32[4, 3] and the weight f32[3, 7] (OutIn) do not fit together";
        assert_eq!(message, expected);
        Ok(())
    }

    #[test]
    fn few_logits_are_stored_and_many_are_not() -> Result<()> {
        let mut g = Graph::new();
        for (rows, name) in [(8, "cross_entropy"), (8192, "linear_cross_entropy")] {
            let x = g.input(&format!("x{rows}"), [rows, 3], DType::F32)?;
            let weight = g.parameter("weight", [1000, 3], DType::F32)?;
            let labels = g.input(&format!("labels{rows}"), [rows], DType::I32)?;
            let options = CrossEntropyOptions::default();
            linear_cross_entropy(&mut g, x, weight, None, WeightLayout::OutIn, labels, &options)?;
            assert_eq!(g.nodes().last().map(|n| n.label.clone()), Some(name.to_owned()));
        }
        Ok(())
    }
}
