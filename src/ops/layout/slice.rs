//! Slices of an axis.

use super::columns::{Around, Columns, copy_window, copy_window_f64, widest_word, with_axis};
use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static PAD: Kernel = kernel!("layout/pad");

/// `out[…, i, …] = x[…, start + i, …]`: `len` entries of one axis from `start` on. Types of 4 bytes. A contiguous slice may share the memory
/// of `x`.
///
/// Gradient: the upstream gradient at the range, zeros around it.
///
/// # Errors
/// [`Error::Shape`] if the range is outside the axis or empty, or the type is packed.
pub fn slice(g: &mut Graph, x: Tensor, axis: usize, start: usize, len: usize) -> Result<Tensor> {
    if start == 0 && g.shape(x).dims().get(axis) == Some(&len) {
        return Ok(x);
    }
    g.put1(Slice { axis, start, len }, &[x])
}

/// See [`slice()`].
#[derive(Debug)]
struct Slice {
    axis: usize,
    start: usize,
    len: usize,
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        let around = Around::axis("slice", ty, self.axis)?;
        let end = self.start.saturating_add(self.len);
        if self.len == 0 || end > around.extent {
            let range = format!("{}..{end}", self.start);
            return Err(Error::shape(
                "slice",
                format!("the range {range} of axis {} is empty or outside {ty}", self.axis),
            ));
        }
        Ok(vec![TensorType::new(with_axis(&ty.shape, self.axis, self.len), ty.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let extent = cx.graph.shape(cx.inputs[0]).dims()[self.axis];
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.put1(Pad { axis: self.axis, start: self.start, extent }, &[upstream])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let around = Around::of(&inputs[0].shape, self.axis);
        let mut out = Array::zeros(with_axis(&inputs[0].shape, self.axis, self.len));
        let (x, y) = self.windows(around);
        copy_window_f64((inputs[0], x), (&mut out, y), around.outer, y.pitch);
        Ok(vec![out])
    }

    fn slice_of(&self, _index: usize, inputs: &[TensorType]) -> Option<(usize, usize)> {
        let around = Around::of(&inputs[0].shape, self.axis);
        (around.outer == 1).then_some((0, self.start * around.inner))
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        if out.slot == x.slot {
            return Ok(());
        }
        let around = Around::of(&x.shape, self.axis);
        let (from, to) = self.windows(around);
        copy_window(cx, (x, from), (out, to), around.outer, to.pitch)
    }
}

impl Slice {
    fn windows(&self, around: Around) -> (Columns, Columns) {
        let from = Columns { start: self.start * around.inner, pitch: around.extent * around.inner };
        (from, Columns { start: 0, pitch: self.len * around.inner })
    }
}

/// `x` from `start` on along an axis of `extent`, zero around it: the gradient of [`Slice`], whose gradient it has.
#[derive(Debug)]
struct Pad {
    axis: usize,
    start: usize,
    extent: usize,
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        let around = Around::axis("pad", ty, self.axis)?;
        if self.start + around.extent > self.extent {
            let what = format!("{ty} at {} does not fit an axis of {}", self.start, self.extent);
            return Err(Error::shape("pad", what));
        }
        Ok(vec![TensorType::new(with_axis(&ty.shape, self.axis, self.extent), ty.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let len = cx.graph.shape(cx.inputs[0]).dims()[self.axis];
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(slice(cx.graph, upstream, self.axis, self.start, len)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let around = Around::of(&inputs[0].shape, self.axis);
        let mut out = Array::zeros(with_axis(&inputs[0].shape, self.axis, self.extent));
        let width = around.extent * around.inner;
        let to = Columns { start: self.start * around.inner, pitch: self.extent * around.inner };
        copy_window_f64((inputs[0], Columns { start: 0, pitch: width }), (&mut out, to), around.outer, width);
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        let around = Around::of(&x.shape, self.axis);
        let (width, start, x_width) =
            (self.extent * around.inner, self.start * around.inner, around.extent * around.inner);
        let (word, size) = widest_word(&[width, start, x_width]);
        let count = out.numel() / size;
        cx.dispatch(
            Dispatch::new(&PAD)
                .snippet(word)
                .read(x)
                .write(out)
                .param(count)
                .param(width / size)
                .param(start / size)
                .param(x_width / size)
                .groups_for(count, 256),
        )
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axis, start, len) in
        [(vec![7], 0, 3, 1), (vec![33, 5], 0, 31, 2), (vec![3, 8, 12], 1, 4, 3), (vec![31, 257], 1, 100, 57)]
    {
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(format!("slice {shape:?} axis {axis} from {start}"), feeds, move |g, x| {
            Ok(vec![slice(g, x[0], axis, start, len)?])
        }));
    }
    cases.into_iter().map(|case| case.tolerance(Tolerance::EXACT, Tolerance::EXACT)).collect()
}
