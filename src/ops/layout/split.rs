//! Splits an axis into pieces.

use super::columns::{Around, Columns, copy_window, copy_window_f64, widest_word, with_axis};
use super::concat::concat;
use super::zeros::zeros;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static SPLIT2: Kernel = kernel!("layout/split2");
static SPLIT3: Kernel = kernel!("layout/split3");

/// Splits a tensor along an axis into pieces of these lengths, which add up to the axis. Types of 4 bytes.
///
/// Gradient: [`concat`](fn@concat) of the upstream gradients, zeros for a piece without one. One dispatch for two or three pieces, else one
/// per piece; none for contiguous pieces that can share the memory of `x`.
///
/// # Errors
/// [`Error::Shape`] if the lengths do not add up or one is zero, or the type is packed.
pub fn split(g: &mut Graph, x: Tensor, axis: usize, lengths: &[usize]) -> Result<Vec<Tensor>> {
    if lengths.len() == 1 && g.shape(x).dims().get(axis) == Some(&lengths[0]) {
        return Ok(vec![x]);
    }
    g.put(Split { axis, lengths: lengths.to_vec() }, &[x])
}

/// See [`split`].
#[derive(Debug)]
struct Split {
    axis: usize,
    lengths: Vec<usize>,
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "split"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        let around = Around::axis("split", ty, self.axis)?;
        let sum = self.lengths.iter().try_fold(0, |sum: usize, &len| sum.checked_add(len));
        if self.lengths.contains(&0) || sum != Some(around.extent) {
            let what =
                format!("the lengths {:?} do not add up to axis {} of {ty}, or one is 0", self.lengths, self.axis);
            return Err(Error::shape("split", what));
        }
        let piece = |&len: &usize| TensorType::new(with_axis(&ty.shape, self.axis, len), ty.dtype);
        Ok(self.lengths.iter().map(piece).collect())
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut parts = Vec::with_capacity(self.lengths.len());
        for (index, upstream) in cx.upstream.iter().enumerate() {
            parts.push(match upstream {
                Some(upstream) => *upstream,
                None => {
                    let shape = cx.graph.shape(cx.outputs[index]).clone();
                    zeros(cx.graph, shape)?
                }
            });
        }
        Ok(vec![Some(concat(cx.graph, &parts, self.axis)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let around = Around::of(&inputs[0].shape, self.axis);
        let pitch = around.extent * around.inner;
        let mut start = 0;
        let mut outputs = Vec::with_capacity(self.lengths.len());
        for &len in &self.lengths {
            let width = len * around.inner;
            let mut out = Array::zeros(with_axis(&inputs[0].shape, self.axis, len));
            let to = Columns { start: 0, pitch: width };
            copy_window_f64((inputs[0], Columns { start, pitch }), (&mut out, to), around.outer, width);
            outputs.push(out);
            start += width;
        }
        Ok(outputs)
    }

    fn slice_of(&self, index: usize, inputs: &[TensorType]) -> Option<(usize, usize)> {
        let around = Around::of(&inputs[0].shape, self.axis);
        (around.outer == 1).then(|| (0, self.lengths[..index].iter().sum::<usize>() * around.inner))
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let x = cx.input(0);
        let around = Around::of(&x.shape, self.axis);
        let pitch = around.extent * around.inner;
        let widths: Vec<usize> = self.lengths.iter().map(|len| len * around.inner).collect();
        let parts = (0..widths.len()).filter(|&index| cx.output(index).slot == x.slot).count();
        if parts == 0
            && let Some(kernel) = widths.len().checked_sub(2).and_then(|index| [&SPLIT2, &SPLIT3].get(index).copied())
        {
            let (word, size) = widest_word(&widths);
            let count = x.numel() / size;
            let mut dispatch = Dispatch::new(kernel).snippet(word).read(x).param(count).param(pitch / size);
            for (index, width) in widths.iter().enumerate() {
                dispatch = dispatch.write(cx.output(index));
                dispatch = if index + 1 < widths.len() { dispatch.param(width / size) } else { dispatch };
            }
            return cx.dispatch(dispatch.groups_for(count, 256));
        }
        let mut start = 0;
        for (index, width) in widths.into_iter().enumerate() {
            let out = (cx.output(index), Columns { start: 0, pitch: width });
            if out.0.slot != x.slot {
                copy_window(cx, (x.clone(), Columns { start, pitch }), out, around.outer, width)?;
            }
            start += width;
        }
        Ok(())
    }
}
