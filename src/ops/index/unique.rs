//! Gathers and places rows by an index without duplicates: the two ops are each other's gradient, without sorts or sums.

use super::gather::{gathered, launch_gather};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Add, Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::ops::rows;
use crate::ops::{self, SelectOptions, SelectRule};
use crate::shape::TensorType;
use std::any::Any;
use std::sync::Arc;

static PLACE_ROWS: Kernel = kernel!("index/place_rows");

/// `out[m] = x[index[m]]`, zeros where `index[m] ≥ N`, no row more than once: `x` (N, C) f32, `index` (M) u32, out (M,
/// C). `inverse` (N) u32 is the inverse index: `inverse[index[m]] = m`, and M or more for rows that are not in `index`.
///
/// Gradient: `dx[n] = dout[inverse[n]]`, the same op with the two indices exchanged, without sorts or sums.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix, or an index no u32 vector of the right length.
pub fn gather_unique(g: &mut Graph, x: Tensor, index: Tensor, inverse: Tensor) -> Result<Tensor> {
    g.put1(GatherUnique, &[x, index, inverse])
}

/// `out[n] = rows[inverse[n]]` where `inverse[n] < M`, else `base[n]`: `base` (N, C) f32 with the rows that `index` (M)
/// u32 names replaced by those of `rows` (M, C); `inverse` (N) u32 as in [`gather_unique`].
///
/// Gradients: `drows[m] = dout[index[m]]`; `dbase[n] = dout[n]`, 0 where a row was placed.
///
/// # Errors
/// [`Error::Shape`] if the matrices are not f32 or differ in their columns, or an index has the wrong length.
pub fn place_rows(g: &mut Graph, base: Tensor, rows: Tensor, index: Tensor, inverse: Tensor) -> Result<Tensor> {
    g.put1(PlaceRows, &[base, rows, index, inverse])
}

/// Checks x (N, C), index (M) and inverse (N); returns N, M and C.
fn sizes(op: &str, x: &TensorType, index: &TensorType, inverse: &TensorType) -> Result<[usize; 3]> {
    let &[rows, columns] = x.shape.dims() else {
        return Err(Error::shape(op, format!("expected an f32 matrix, got {x}")));
    };
    if x.dtype != DType::F32 || rows * columns == 0 {
        return Err(Error::shape(op, format!("expected an f32 matrix, got {x}")));
    }
    if index.dtype != DType::U32 || index.shape.rank() != 1 || *inverse != TensorType::new([rows], DType::U32) {
        let what = format!("expected an index u32[M] and its inverse u32[{rows}], got {index} and {inverse}");
        return Err(Error::shape(op, what));
    }
    Ok([rows, index.shape.numel(), columns])
}

/// See [`gather_unique`].
#[derive(Debug)]
struct GatherUnique;

impl Op for GatherUnique {
    fn name(&self) -> &'static str {
        "gather_unique"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [_, count, columns] = sizes("gather_unique", &inputs[0], &inputs[1], &inputs[2])?;
        Ok(vec![TensorType::f32([count, columns])])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        Ok(vec![Some(gather_unique(cx.graph, dout, cx.inputs[2], cx.inputs[1])?), None, None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![gathered(inputs[0], inputs[1])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch_gather(cx)
    }

    fn epilogue(&self, consumer: &dyn Op, _index: usize) -> Option<Arc<dyn Op>> {
        (consumer as &dyn Any).downcast_ref::<Add>().map(|_| Arc::new(GatherAdd { limit: None }) as Arc<dyn Op>)
    }
}

/// `out[n] = other[n] + x[index[n]]`, without the second term if `index[n]` is out of range: the fused sum of a gradient and that of a
/// [`GatherUnique`]. Inputs: x (M, C), index (N), inverse (M), other (N, C).
///
/// With a limit, other is 0 in the rows where `cleared[n]` is less, as in [`ClearRows`], and the inputs are: other, cleared (N), x, index,
/// inverse.
#[derive(Debug)]
struct GatherAdd {
    limit: Option<usize>,
}

impl GatherAdd {
    /// Other, x, cleared (or what stands for it) and index.
    fn sort<T>(&self, input: impl Fn(usize) -> T) -> [T; 4] {
        match self.limit {
            Some(_) => [input(0), input(2), input(1), input(3)],
            None => [input(3), input(0), input(1), input(1)],
        }
    }
}

impl Op for GatherAdd {
    fn name(&self) -> &'static str {
        "gather_add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![self.sort(|i| inputs[i].clone())[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let [other, x, cleared, index] = self.sort(|i| inputs[i]);
        let mut out = other.clone();
        for n in 0..out.shape.rows() {
            if self.limit.is_some_and(|limit| (cleared.data[n] as usize) < limit) {
                out.row_mut(n).fill(0.0);
            }
            if (index.data[n] as usize) < x.shape.rows() {
                for (sum, x) in out.row_mut(n).iter_mut().zip(x.row(index.data[n] as usize)) {
                    *sum += x;
                }
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let views = self.sort(|i| cx.input(i));
        launch(cx, views, self.limit, true)
    }
}

/// See [`place_rows`]. Inputs: base (N, C), rows (M, C), index (M), inverse (N).
#[derive(Debug)]
struct PlaceRows;

impl Op for PlaceRows {
    fn name(&self) -> &'static str {
        "place_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (base, rows) = (&inputs[0], &inputs[1]);
        let [_, count, columns] = sizes("place_rows", base, &inputs[2], &inputs[3])?;
        if *rows != TensorType::f32([count, columns]) {
            let what = format!("expected {count} rows for {base}, one per entry of the index, got {rows}");
            return Err(Error::shape("place_rows", what));
        }
        Ok(vec![base.clone()])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (dout, index, inverse) = (cx.upstream(0)?, cx.inputs[2], cx.inputs[3]);
        let count = cx.graph.shape(index).numel();
        let dbase = if cx.needed[0] { Some(cx.graph.put1(ClearRows { count }, &[dout, inverse])?) } else { None };
        let drows = if cx.needed[1] { Some(gather_unique(cx.graph, dout, index, inverse)?) } else { None };
        Ok(vec![dbase, drows, None, None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (rows, inverse, mut out) = (inputs[1], inputs[3], inputs[0].clone());
        for (n, &slot) in inverse.data.iter().enumerate().filter(|(_, slot)| (**slot as usize) < rows.shape.rows()) {
            out.row_mut(n).copy_from_slice(rows.row(slot as usize));
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.input(2).numel();
        let views = [0, 1, 3, 3].map(|i| cx.input(i));
        launch(cx, views, Some(count), true)
    }
}

/// `out[n] = 0` where `inverse[n]` is less than `count`, else `x[n]`: the gradient of [`PlaceRows`] with respect to its base. Inputs: x (N, C), inverse (N). No gradient of its own.
#[derive(Debug)]
struct ClearRows {
    count: usize,
}

impl Op for ClearRows {
    fn name(&self) -> &'static str {
        "clear_rows"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        sizes("clear_rows", &inputs[0], &inputs[1], &inputs[1])?;
        Ok(vec![inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut out = inputs[0].clone();
        for (n, _) in inputs[1].data.iter().enumerate().filter(|(_, slot)| (**slot as usize) < self.count) {
            out.row_mut(n).fill(0.0);
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let views = [0, 0, 1, 1].map(|i| cx.input(i));
        launch(cx, views, Some(self.count), false)
    }

    fn epilogue(&self, consumer: &dyn Op, index: usize) -> Option<Arc<dyn Op>> {
        let sum = (consumer as &dyn Any).downcast_ref::<GatherAdd>()?;
        (index == 3 && sum.limit.is_none()).then(|| Arc::new(GatherAdd { limit: Some(self.count) }) as Arc<dyn Op>)
    }
}

/// Records the kernel for the views left, rows, cleared and inverse: rows of `left` are cleared below a limit, and `rows` are
/// gathered and added.
fn launch(cx: &mut Launch<'_>, views: [View; 4], limit: Option<usize>, gathers: bool) -> Result<()> {
    let out = cx.output(0);
    let (columns, rows) = (out.shape.last(), views[1].shape.rows());
    let width = rows::width(columns);
    let count = out.numel() / width;
    let dispatch = Dispatch::new(&PLACE_ROWS).constant("CLEARS", limit.is_some()).constant("GATHERS", gathers);
    let dispatch = views.into_iter().fold(dispatch.snippet(rows::elements(width)), Dispatch::read).write(out);
    let dispatch = dispatch.param(count).param(columns / width).param(rows).param(limit.unwrap_or(0));
    cx.dispatch(dispatch.groups_for(count, 64))
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, candidates, k, columns) in [(1, 1, 1, 1), (2, 31, 9, 33), (3, 33, 33, 4), (2, 257, 100, 7)] {
        cases.push(case(batch, candidates, k, columns, false));
        cases.push(case(batch, candidates, k, columns, true));
    }
    cases.push(gathered_twice());
    cases
}

/// Rows are gathered, halved and placed back: forward and backward of both ops.
fn case(batch: usize, candidates: usize, k: usize, columns: usize, threshold: bool) -> Case {
    let keys = Feed::normal("keys", [batch, candidates]).fixed();
    let feeds = vec![
        keys,
        Feed::normal("x", [batch * candidates, columns]),
        Feed::normal("y", [batch * if threshold { candidates } else { k }, columns]),
    ];
    let name = format!("gather_unique and place_rows, {k} of [{batch}, {candidates}], {columns} columns, {threshold}");
    Case::new(name, feeds, move |g, x| {
        let choice = if threshold { SelectRule::AtLeast(0.5) } else { SelectRule::Top(k) };
        let s = ops::select(g, x[0], choice, &SelectOptions::default())?;
        let rows = gather_unique(g, x[1], s.index, s.inverse)?;
        let product = ops::mul(g, rows, x[2])?;
        Ok(vec![rows, place_rows(g, x[1], product, s.index, s.inverse)?])
    })
}

/// Rows are gathered twice: the gradients of both meet, and only one of them comes after rows were cleared.
fn gathered_twice() -> Case {
    let feeds = vec![Feed::normal("keys", [2, 33]).fixed(), Feed::normal("x", [66, 5])];
    Case::new("gather_unique twice", feeds, |g, x| {
        let first = ops::select(g, x[0], SelectRule::Top(20), &SelectOptions::default())?;
        let second = ops::select(g, x[0], SelectRule::AtLeast(0.3), &SelectOptions::default())?;
        let rows = gather_unique(g, x[1], first.index, first.inverse)?;
        let others = gather_unique(g, x[1], second.index, second.inverse)?;
        let square = ops::mul(g, others, others)?;
        let placed = place_rows(g, x[1], square, second.index, second.inverse)?;
        Ok(vec![rows, placed])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, 3], DType::F32)?;
        let rows = g.input("rows", [2, 5], DType::F32)?;
        let index = g.input("index", [2], DType::U32)?;
        let inverse = g.input("inverse", [4], DType::U32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(gather_unique(&mut g, x, index, index));
        assert_eq!(message, "gather_unique: expected an index u32[M] and its inverse u32[4], got u32[2] and u32[2]");
        let message = refused(place_rows(&mut g, x, rows, index, inverse));
        let wanted = "place_rows: expected 2 rows for f32[4, 3], one per entry of the index, got f32[2, 5]";
        assert_eq!(message, wanted);
        Ok(())
    }
}
