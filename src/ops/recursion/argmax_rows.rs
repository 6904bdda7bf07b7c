//! The argmax of each row.

use super::router::{expect, matrix};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static ARGMAX_ROWS: Kernel = kernel!("recursion/argmax_rows");

/// The column of the largest element of each row of `x` (N, R) f32, the first of equal ones: (N) u32. A `bias` (R) f32 is added first. No
/// gradient.
///
/// # Errors
/// [`Error::Shape`] if `x` is no f32 matrix or the bias does not fit it.
pub fn argmax_rows(g: &mut Graph, x: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [Some(x), bias].into_iter().flatten().collect();
    g.put1(ArgmaxRows, &inputs)
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
        if columns > cx.caps().max_loop_iterations() {
            return Err(Error::Unsupported {
                what: format!("argmax_rows of {columns} columns"),
                needs: format!("loops of more than {} iterations", cx.caps().max_loop_iterations()),
                adapter: cx.caps().name.clone(),
                hint: "Split the rows and take the largest of their parts, or use a GPU".into(),
            });
        }
        let dispatch = Dispatch::new(&ARGMAX_ROWS).read(x).read(bias).write(cx.output(0));
        let dispatch = dispatch.param(rows).param(columns).param(cx.input_count() - 1);
        cx.dispatch(dispatch.groups_for(rows, 64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let equal = Feed::given("x", [33, 4], DType::F32, (0..132).map(|i| f64::from(i * i % 3)));
    cases.push(Case::new("argmax_rows of equal numbers", vec![equal], |g, x| Ok(vec![argmax_rows(g, x[0], None)?])));
    cases
}
