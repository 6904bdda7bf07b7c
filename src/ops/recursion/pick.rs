//! Picks one element of each row.

use super::router::{expect, matrix};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::shape::TensorType;

static PICK: Kernel = kernel!("recursion/pick");
static PICK_BACKWARD: Kernel = kernel!("recursion/pick_backward");

/// `out[n] = x[n, index[n]]`, 0 where the index is out of range: `x` (N, R) f32, `index` (N) u32, out (N) f32.
///
/// Gradient: `dx[n, index[n]] = dout[n]`, zeros elsewhere.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `x` is no f32 matrix or the index has another number of rows.
pub fn pick(g: &mut Graph, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.put1(Pick, &[x, index])
}

/// See [`pick`].
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

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns) in [(1, 1), (31, 3), (257, 5), (33, 64)] {
        let name = format!("argmax_rows and pick [{rows}, {columns}]");
        let feeds = vec![Feed::normal("x", [rows, columns]), Feed::normal("bias", [columns]).fixed()];
        cases.push(Case::new(name, feeds, |g, x| {
            let (plain, biased) = (ops::argmax_rows(g, x[0], None)?, ops::argmax_rows(g, x[0], Some(x[1]))?);
            Ok(vec![plain, biased, pick(g, x[0], biased)?])
        }));
    }
    let outside = Feed::given("index", [5], DType::U32, [0.0, 3.0, 4_000_000_000.0, 2.0, 1.0]);
    cases.push(Case::new("pick outside", vec![Feed::normal("x", [5, 3]), outside], |g, x| {
        Ok(vec![pick(g, x[0], x[1])?])
    }));
    cases
}
