//! Softmax over the last axis.

use crate::case::{Case, Feed, Tolerance};
use crate::error::Result;
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Kernel, Launch, kernel};
use crate::ops::rows::{self, RowVariant};
use crate::shape::Shape;
use crate::shape::TensorType;

static SOFTMAX: [Kernel; 2] = [kernel!("norm/softmax_threads"), kernel!("norm/softmax_workgroup")];
static SOFTMAX_BACKWARD: [Kernel; 2] =
    [kernel!("norm/softmax_backward_threads"), kernel!("norm/softmax_backward_workgroup")];

/// `y = e^(x − m) / Σ e^(x − m)` along the last axis, `m` the largest of the row; `x`, `y` (…, C) f32, any finite
/// values.
///
/// Gradient: `dx = y (dout − Σ y dout)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if `x` is not f32 or has no last axis.
pub fn softmax(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Softmax { log: false, variant: None }, &[x])
}

/// `y = x − m − ln Σ e^(x − m)` along the last axis, `m` the largest of the row; `x`, `y` (…, C) f32, any finite
/// values.
///
/// Gradient: `dx = dout − e^y Σ dout`.
///
/// # Errors
/// As [`softmax`].
pub fn log_softmax(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Softmax { log: true, variant: None }, &[x])
}

/// See [`softmax`], and with `log` [`log_softmax`].
#[derive(Debug)]
pub(crate) struct Softmax {
    /// The logarithm.
    pub(crate) log: bool,
    /// The variant; the adapter's default if not given.
    pub(crate) variant: Option<RowVariant>,
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let types = rows::same_f32(self.name(), inputs, 1)?;
        rows::has_rows(self.name(), &types[0])?;
        Ok(types)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        let back = SoftmaxBackward { log: self.log, variant: self.variant };
        Ok(vec![Some(cx.graph.put1(back, &[cx.outputs[0], dout])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut out = inputs[0].clone();
        for row in 0..out.shape.rows() {
            let row = out.row_mut(row);
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let z: f64 = row.iter().map(|x| (x - top).exp()).sum();
            row.iter_mut().for_each(|x| *x = if self.log { *x - top - z.ln() } else { (*x - top).exp() / z });
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &SOFTMAX, self.log, self.variant)
    }
}

/// The gradient of [`Softmax`], from its result and the upstream gradient; all (…, C) f32.
#[derive(Debug)]
pub(crate) struct SoftmaxBackward {
    log: bool,
    variant: Option<RowVariant>,
}

impl Op for SoftmaxBackward {
    fn name(&self) -> &'static str {
        if self.log { "log_softmax_backward" } else { "softmax_backward" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let types = rows::same_f32(self.name(), inputs, 2)?;
        rows::has_rows(self.name(), &types[0])?;
        Ok(types)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (y, mut out) = (inputs[0], inputs[1].clone());
        for row in 0..y.shape.rows() {
            let (y, d) = (y.row(row), out.row_mut(row));
            let level: f64 = d.iter().zip(y).map(|(d, y)| if self.log { *d } else { d * y }).sum();
            for (d, y) in d.iter_mut().zip(y) {
                *d = if self.log { *d - y.exp() * level } else { y * (*d - level) };
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch(cx, &SOFTMAX_BACKWARD, self.log, self.variant)
    }
}

/// Records a kernel over rows that reads all inputs.
fn launch(cx: &mut Launch<'_>, kernels: &'static [Kernel; 2], log: bool, variant: Option<RowVariant>) -> Result<()> {
    let out = cx.output(0);
    let (rows, columns) = (out.shape.rows(), out.shape.last());
    let variant = RowVariant::choose(variant, cx.caps(), rows, columns);
    let mut dispatch = variant.over_rows(cx.caps(), kernels, rows, columns).constant("LOG", log);
    for index in 0..cx.input_count() {
        dispatch = dispatch.read(cx.input(index));
    }
    // An exponential counts as one operation.
    cx.dispatch(dispatch.flops(4 * out.numel() as u64).write(out))
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for log in [false, true] {
        let name = if log { "log_softmax" } else { "softmax" };
        for shape in [&[1, 1][..], &[33, 1], &[257], &[31, 3], &[2, 9, 33], &[5, 1028], &[3, 2049]] {
            for variant in RowVariant::ALL {
                cases.push(case(format!("{name} {shape:?} {variant:?}"), Feed::normal("x", shape), log, variant));
            }
        }
        for variant in RowVariant::ALL {
            // Values at which a naive exp overflows, and a constant that a shift must not change.
            let large = Feed::normal_scaled("x", [17, 67], 1e4, 30.0);
            cases.push(case(format!("{name} of large values {variant:?}"), large, log, variant));
            cases.push(case(format!("{name} of masked values {variant:?}"), masked(), log, variant));
        }
    }
    cases
}

/// Rows of which some elements are masked by a large negative number; the third is masked altogether.
fn masked() -> Feed {
    let shape = Shape::from([4, 37]);
    let value = |i: usize| if i / 37 == 2 || i % 3 == i / 37 { -1e30 } else { (i * 7 % 11) as f64 * 0.25 };
    let values: Vec<f64> = (0..shape.numel()).map(value).collect();
    Feed::given("x", shape, crate::DType::F32, values)
}

fn case(name: String, feed: Feed, log: bool, variant: RowVariant) -> Case {
    let case =
        Case::new(name, vec![feed], move |g, x| Ok(vec![g.put1(Softmax { log, variant: Some(variant) }, &[x[0]])?]));
    case.tolerance(Tolerance { nmse: 1e-11, worst: 5e-6 }, Tolerance { nmse: 1e-10, worst: 2e-5 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::shape::Shape;

    #[test]
    fn softmax_wants_a_last_axis() {
        let mut g = Graph::new();
        for (name, shape) in [("scalar", Shape::default()), ("empty", Shape::from([3, 0]))] {
            let x = g.input(name, shape, DType::F32).unwrap();
            let message = softmax(&mut g, x).unwrap_err().to_string();
            assert!(message.contains("softmax") && message.contains("no last axis"), "{message}");
        }
        let ids = g.input("ids", [2, 3], DType::I32).unwrap();
        assert!(log_softmax(&mut g, ids).unwrap_err().to_string().contains("i32"));
    }
}
