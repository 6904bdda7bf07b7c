//! Reshape, slice, split, concatenate, zeros. Transposition has a file of its own.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::shape::{Shape, TensorType, product};

static WORD: Snippet = kernel!("common/word");
static WORD4: Snippet = kernel!("common/word4");
static WINDOW: Kernel = kernel!("layout/window");
static PAD: Kernel = kernel!("layout/pad");
static FILL: Kernel = kernel!("layout/fill");
static SPLIT2: Kernel = kernel!("layout/split2");
static SPLIT3: Kernel = kernel!("layout/split3");
static CONCAT2: Kernel = kernel!("layout/concat2");
static CONCAT3: Kernel = kernel!("layout/concat3");

/// The same elements in another shape: no work, the memory is shared. Any element type.
///
/// # Errors
/// [`Error::Shape`] if the element counts differ.
pub fn reshape(g: &mut Graph, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    if *g.shape(x) == shape {
        return Ok(x);
    }
    g.put1(Reshape { shape }, &[x])
}

/// `len` entries of one axis from `start` on. Types of 4 bytes.
///
/// # Errors
/// [`Error::Shape`] if the range leaves the axis or is empty, or the type is packed.
pub fn slice(g: &mut Graph, x: Tensor, axis: usize, start: usize, len: usize) -> Result<Tensor> {
    if start == 0 && g.shape(x).dims().get(axis) == Some(&len) {
        return Ok(x);
    }
    g.put1(Slice { axis, start, len }, &[x])
}

/// The tensor cut along an axis into pieces of these lengths, which add up to the axis. Types of 4 bytes.
///
/// # Errors
/// [`Error::Shape`] if the lengths do not add up or one is zero, or the type is packed.
pub fn split(g: &mut Graph, x: Tensor, axis: usize, lengths: &[usize]) -> Result<Vec<Tensor>> {
    if lengths.len() == 1 && g.shape(x).dims().get(axis) == Some(&lengths[0]) {
        return Ok(vec![x]);
    }
    g.put(Split { axis, lengths: lengths.to_vec() }, &[x])
}

/// Tensors one after the other along an axis. Types of 4 bytes.
///
/// # Errors
/// [`Error::Shape`] if the other axes or the types differ, or the type is packed.
pub fn concat(g: &mut Graph, parts: &[Tensor], axis: usize) -> Result<Tensor> {
    match parts {
        [only] if axis < g.shape(*only).rank() => Ok(*only),
        _ => g.put1(Concat { axis }, parts),
    }
}

/// An f32 tensor of zeros, written anew on every run.
///
/// # Errors
/// None today.
pub fn zeros(g: &mut Graph, shape: impl Into<Shape>) -> Result<Tensor> {
    g.put1(Zeros { shape: shape.into() }, &[])
}

/// A tensor seen as (outer, extent, inner) around one axis.
#[derive(Clone, Copy, Debug)]
struct Around {
    outer: usize,
    extent: usize,
    inner: usize,
}

impl Around {
    fn axis(op: &str, ty: &TensorType, axis: usize) -> Result<Self> {
        let dims = ty.shape.dims();
        if axis >= dims.len() {
            return Err(Error::shape(op, format!("there is no axis {axis} in {ty}")));
        }
        if !is_word(ty.dtype) {
            let what = format!("{ty} is packed in pairs and can only be reshaped; cast it to f32 first");
            return Err(Error::shape(op, what));
        }
        Ok(Self::of(&ty.shape, axis))
    }

    fn of(shape: &Shape, axis: usize) -> Self {
        let dims = shape.dims();
        Self { outer: product(&dims[..axis]), extent: dims[axis], inner: product(&dims[axis + 1..]) }
    }
}

/// Whether elements fill whole words, so that kernels can move them without looking inside.
pub(in crate::ops) fn is_word(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::U32 | DType::I32)
}

/// The widest word that all these element counts are multiples of: its snippet and its elements.
pub(in crate::ops) fn widest_word(counts: &[usize]) -> (&'static Snippet, usize) {
    if counts.iter().all(|count| count % 4 == 0) { (&WORD4, 4) } else { (&WORD, 1) }
}

fn with_axis(shape: &Shape, axis: usize, extent: usize) -> Shape {
    let mut dims = shape.dims().to_vec();
    dims[axis] = extent;
    Shape::new(dims)
}

/// The window of `width` columns from `start` on of a matrix with rows of `pitch` elements.
#[derive(Clone, Copy, Debug)]
struct Columns {
    start: usize,
    pitch: usize,
}

/// Copies `rows` rows of `width` elements from a window of `x` to a window of `out`.
fn copy_window(cx: &mut Launch<'_>, x: (View, Columns), out: (View, Columns), rows: usize, width: usize) -> Result<()> {
    let (word, size) = widest_word(&[x.1.start, x.1.pitch, out.1.start, out.1.pitch, width]);
    let count = rows * width / size;
    cx.dispatch(
        Dispatch::new(&WINDOW)
            .snippet(word)
            .read(x.0)
            .update(out.0)
            .param(count)
            .param(width / size)
            .param(x.1.start / size)
            .param(x.1.pitch / size)
            .param(out.1.start / size)
            .param(out.1.pitch / size)
            .groups_for(count, 256),
    )
}

fn copy_window_f64(x: (&Array, Columns), out: (&mut Array, Columns), rows: usize, width: usize) {
    for row in 0..rows {
        let (from, to) = (x.1.start + row * x.1.pitch, out.1.start + row * out.1.pitch);
        out.0.data[to..to + width].copy_from_slice(&x.0.data[from..from + width]);
    }
}

/// `out = x` under another shape; gradient: the upstream gradient under the shape of `x`.
#[derive(Debug)]
struct Reshape {
    shape: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        if ty.shape.numel() != self.shape.numel() {
            let what =
                format!("{ty} has {} elements, shape {} takes {}", ty.shape.numel(), self.shape, self.shape.numel());
            return Err(Error::shape("reshape", what));
        }
        Ok(vec![TensorType::new(self.shape.clone(), ty.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (upstream, shape) = (cx.upstream(0)?, cx.graph.shape(cx.inputs[0]).clone());
        Ok(vec![Some(reshape(cx.graph, upstream, shape)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].reshape(self.shape.clone())?])
    }

    fn launch(&self, _cx: &mut Launch<'_>) -> Result<()> {
        Ok(())
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::View(0))
    }
}

/// `out[…, i, …] = x[…, start + i, …]`; gradient: [`Pad`]. What lies in one piece in `x` may stay there.
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
                format!("the range {range} of axis {} is empty or leaves {ty}", self.axis),
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

    fn part_of(&self, _index: usize, inputs: &[TensorType]) -> Option<(usize, usize)> {
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
            let what = format!("{ty} from {} on does not fit an axis of {}", self.start, self.extent);
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

/// The pieces of `x` along an axis; gradient: [`Concat`], a piece that no gradient reaches counting as zero.
///
/// One dispatch for two or three pieces, else one a piece; none for pieces that lie in one piece in `x` and can stay there.
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

    fn part_of(&self, index: usize, inputs: &[TensorType]) -> Option<(usize, usize)> {
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

/// The inputs one after the other along an axis; gradient: [`Split`], or one [`Slice`] where one input needs it.
///
/// One dispatch for two or three inputs, else one an input.
#[derive(Debug)]
struct Concat {
    axis: usize,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let first = inputs.first().ok_or_else(|| Error::shape("concat", "there is nothing to concatenate"))?;
        let mut extent = 0;
        for ty in inputs {
            extent += Around::axis("concat", ty, self.axis)?.extent;
            let same = ty.shape.rank() == first.shape.rank()
                && with_axis(&ty.shape, self.axis, 1) == with_axis(&first.shape, self.axis, 1);
            if ty.dtype != first.dtype || !same {
                let what = format!("{first} and {ty} differ in more than axis {}", self.axis);
                return Err(Error::shape("concat", what));
            }
        }
        Ok(vec![TensorType::new(with_axis(&first.shape, self.axis, extent), first.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        let lengths: Vec<usize> = cx.inputs.iter().map(|&t| cx.graph.shape(t).dims()[self.axis]).collect();
        if cx.needed.iter().filter(|&&needed| needed).count() > 1 {
            let pieces = split(cx.graph, upstream, self.axis, &lengths)?;
            return Ok(pieces.into_iter().map(Some).collect());
        }
        let mut start = 0;
        let mut gradients = Vec::with_capacity(lengths.len());
        for (&len, &needed) in lengths.iter().zip(cx.needed) {
            gradients.push(if needed { Some(slice(cx.graph, upstream, self.axis, start, len)?) } else { None });
            start += len;
        }
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let extent: usize = inputs.iter().map(|x| x.shape.dims()[self.axis]).sum();
        let mut out = Array::zeros(with_axis(&inputs[0].shape, self.axis, extent));
        let around = Around::of(&out.shape, self.axis);
        let pitch = extent * around.inner;
        let mut start = 0;
        for x in inputs {
            let width = x.shape.dims()[self.axis] * around.inner;
            let from = Columns { start: 0, pitch: width };
            copy_window_f64((x, from), (&mut out, Columns { start, pitch }), around.outer, width);
            start += width;
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let out = cx.output(0);
        let around = Around::of(&out.shape, self.axis);
        let pitch = around.extent * around.inner;
        let inputs: Vec<View> = (0..cx.input_count()).map(|index| cx.input(index)).collect();
        let widths: Vec<usize> = inputs.iter().map(|x| x.shape.dims()[self.axis] * around.inner).collect();
        if let Some(kernel) = inputs.len().checked_sub(2).and_then(|index| [&CONCAT2, &CONCAT3].get(index).copied()) {
            let (word, size) = widest_word(&widths);
            let count = out.numel() / size;
            let mut dispatch = Dispatch::new(kernel).snippet(word).param(count).param(pitch / size);
            for (index, (x, width)) in inputs.into_iter().zip(&widths).enumerate() {
                dispatch = dispatch.read(x);
                dispatch = if index + 1 < widths.len() { dispatch.param(width / size) } else { dispatch };
            }
            return cx.dispatch(dispatch.write(out).groups_for(count, 256));
        }
        let mut start = 0;
        for (x, width) in inputs.into_iter().zip(widths) {
            let from = Columns { start: 0, pitch: width };
            copy_window(cx, (x, from), (out.clone(), Columns { start, pitch }), around.outer, width)?;
            start += width;
        }
        Ok(())
    }
}

/// Writes zeros to a tensor of 4-byte elements.
pub(in crate::ops) fn fill_zeros(cx: &mut Launch<'_>, out: View) -> Result<()> {
    let (word, size) = widest_word(&[out.numel()]);
    let count = out.numel() / size;
    cx.dispatch(Dispatch::new(&FILL).snippet(word).write(out).param(count).groups_for(count, 1024))
}

/// Zeros of a shape; nothing to differentiate.
#[derive(Debug)]
struct Zeros {
    shape: Shape,
}

impl Op for Zeros {
    fn name(&self) -> &'static str {
        "zeros"
    }

    fn infer(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![TensorType::f32(self.shape.clone())])
    }

    fn reference(&self, _inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![Array::zeros(self.shape.clone())])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let out = cx.output(0);
        fill_zeros(cx, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<Tensor>) -> String {
        result.map(|_| String::new()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 6], DType::F32)?;
        let y = g.input("y", [3, 6], DType::F32)?;
        let half = g.input("half", [2, 6], DType::F16)?;
        assert_eq!(refused(reshape(&mut g, x, [5])), "reshape: f32[2, 6] has 12 elements, shape [5] takes 5");
        assert_eq!(refused(slice(&mut g, x, 1, 4, 3)), "slice: the range 4..7 of axis 1 is empty or leaves f32[2, 6]");
        assert_eq!(refused(slice(&mut g, x, 2, 0, 1)), "slice: there is no axis 2 in f32[2, 6]");
        assert_eq!(refused(concat(&mut g, &[x, y], 1)), "concat: f32[2, 6] and f32[3, 6] differ in more than axis 1");
        assert!(refused(slice(&mut g, half, 1, 0, 2)).contains("packed in pairs"));
        assert_eq!(refused(concat(&mut g, &[], 0)), "concat: there is nothing to concatenate");
        let split = split(&mut g, x, 1, &[2, 2]).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(split, "split: the lengths [2, 2] do not add up to axis 1 of f32[2, 6], or one is 0");
        Ok(())
    }

    #[test]
    fn what_changes_nothing_adds_no_node() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 6], DType::F32)?;
        assert_eq!(reshape(&mut g, x, [2, 6])?, x);
        assert_eq!(slice(&mut g, x, 1, 0, 6)?, x);
        assert_eq!(concat(&mut g, &[x], 0)?, x);
        assert_eq!(split(&mut g, x, 0, &[2])?, [x]);
        Ok(())
    }

    #[test]
    fn ranges_that_no_number_holds_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, 4], DType::F32)?;
        let end = usize::MAX;
        assert_eq!(
            refused(slice(&mut g, x, 0, end, 2)),
            format!("slice: the range {end}..{end} of axis 0 is empty or leaves f32[4, 4]")
        );
        let split = split(&mut g, x, 1, &[5, end]).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(split.contains("do not add up to axis 1 of f32[4, 4]"), "{split}");
        Ok(())
    }
}
