//! Concatenation along an axis.

use super::columns::{Around, Columns, copy_window, copy_window_f64, widest_word, with_axis};
use super::slice::slice;
use super::split::split;
use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::ops;
use crate::shape::TensorType;

static CONCAT2: Kernel = kernel!("layout/concat2");
static CONCAT3: Kernel = kernel!("layout/concat3");

/// Concatenates tensors along an axis. Types of 4 bytes.
///
/// Gradient: [`split`] of the upstream gradient, or one [`slice`](fn@slice) if only one part needs it. One dispatch for two or three parts,
/// else one per part.
///
/// # Errors
/// [`Error::Shape`] if the other axes or the types differ, or the type is packed.
pub fn concat(g: &mut Graph, parts: &[Tensor], axis: usize) -> Result<Tensor> {
    match parts {
        [only] if axis < g.shape(*only).rank() => Ok(*only),
        _ => g.put1(Concat { axis }, parts),
    }
}

/// See [`concat()`].
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

/// The conformance cases, with those of [`split`].
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, axis, lengths) in [
        (vec![33, 24], 1, vec![8, 16]),
        (vec![5, 31, 3], 1, vec![1, 30]),
        (vec![31, 48], 1, vec![16, 16, 16]),
        (vec![9, 17], 1, vec![7, 1, 9]),
        (vec![257, 3], 0, vec![1, 100, 56, 100]),
    ] {
        let parts: Vec<Feed> = ["a", "b", "c", "d"]
            .into_iter()
            .zip(&lengths)
            .map(|(name, &len)| {
                let mut shape = shape.clone();
                shape[axis] = len;
                Feed::normal(name, shape)
            })
            .collect();
        cases.push(Case::new(format!("concat {shape:?} axis {axis} of {lengths:?}"), parts, move |g, x| {
            Ok(vec![concat(g, x, axis)?])
        }));
        let name = format!("split {shape:?} axis {axis} into {lengths:?}");
        let feeds = vec![Feed::normal("x", shape.clone())];
        cases.push(Case::new(name, feeds, move |g, x| split(g, x[0], axis, &lengths)));
    }
    let feeds = vec![Feed::normal("x", [6, 20])];
    for (width, what) in [(64, "where they lie"), (33, "which must be moved")] {
        let name = format!("pieces of one row, {what}");
        cases.push(Case::new(name, vec![Feed::normal("x", [1, 4 * width])], move |g, x| {
            let row = ops::scale(g, x[0], 2.0)?;
            let mut pieces = split(g, row, 1, &[width, 2 * width, width])?;
            pieces[1] = slice(g, pieces[1], 1, width, width)?;
            // By powers of two, so that numbers stay exact.
            Ok(vec![ops::scale(g, pieces[0], 0.5)?, ops::scale(g, pieces[1], 4.0)?, pieces[2]])
        }));
    }
    cases.push(Case::new("split with an unused piece", feeds, |g, x| {
        let pieces = split(g, x[0], 1, &[4, 8, 8])?;
        Ok(vec![pieces[1]])
    }));
    let feeds = vec![Feed::normal("a", [4, 3]), Feed::normal("b", [4, 6]).fixed()];
    cases.push(Case::new("concat with one gradient", feeds, |g, x| Ok(vec![concat(g, x, 1)?])));
    let numbers = (0..3 * 8).map(f64::from);
    let feeds = vec![Feed::given("ids", [3, 8], DType::U32, numbers)];
    cases.push(Case::new("layout of integers", feeds, |g, x| {
        let moved = ops::transpose(g, x[0], &[1, 0])?;
        let cut = slice(g, x[0], 1, 4, 4)?;
        let joined = concat(g, &[cut, x[0]], 1)?;
        let mut outputs = vec![moved, cut, joined];
        outputs.extend(split(g, x[0], 1, &[1, 2, 5])?);
        Ok(outputs)
    }));
    cases.into_iter().map(|case| case.tolerance(Tolerance::EXACT, Tolerance::EXACT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reshape;

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
        assert_eq!(refused(slice(&mut g, x, 1, 4, 3)), "slice: the range 4..7 of axis 1 is empty or outside f32[2, 6]");
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
            format!("slice: the range {end}..{end} of axis 0 is empty or outside f32[4, 4]")
        );
        let split = split(&mut g, x, 1, &[5, end]).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert!(split.contains("do not add up to axis 1 of f32[4, 4]"), "{split}");
        Ok(())
    }
}
