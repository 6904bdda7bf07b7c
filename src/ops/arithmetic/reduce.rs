//! Sums and means, and the broadcasts that are their gradients.

use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows::{self, RowVariant};
use crate::shape::{Shape, TensorType};

static BROADCAST: Kernel = kernel!("arithmetic/broadcast");

/// The sum of all elements, as a scalar (no axes); `x` f32 of any shape.
///
/// Two stages with a fixed number of partial sums, without atomics: the same bits on every run. Gradient: `dx = dout`,
/// broadcast.
///
/// # Errors
/// [`Error::Shape`] if `x` is not f32 or empty.
pub fn sum(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Reduce::new(Over::All(Shape::default()), 1.0), &[x])
}

/// The mean of all elements, as a scalar (no axes). Gradient: `dx = dout / n` for n elements, broadcast. Else as
/// [`sum`].
///
/// # Errors
/// As [`sum`].
pub fn mean(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    let factor = 1.0 / g.shape(x).numel() as f32;
    g.put1(Reduce::new(Over::All(Shape::default()), factor), &[x])
}

/// The sums of the columns: (…, C) → (C), f32. Gradient: `dx[…, c] = dout[c]`. In stages as [`sum`].
///
/// # Errors
/// As [`sum`], and if `x` has no axis.
pub fn sum_rows(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Reduce::new(Over::Rows, 1.0), &[x])
}

/// The sums along the last axis: (…, C) → (…), f32. Gradient: `dx[…, c] = dout[…]`.
///
/// # Errors
/// As [`sum`], and if `x` has no axis.
pub fn sum_last(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Reduce::new(Over::Last, 1.0), &[x])
}

/// The means along the last axis: (…, C) → (…), f32. Gradient: `dx[…, c] = dout[…] / C`.
///
/// # Errors
/// As [`sum`], and if `x` has no axis.
pub fn mean_last(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    let factor = 1.0 / g.shape(x).last() as f32;
    g.put1(Reduce::new(Over::Last, factor), &[x])
}

/// The axes of a sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// All; the result has this shape, of one element.
    All(Shape),
    /// All but the last: (…, C) → (C).
    Rows,
    /// The last: (…, C) → (…).
    Last,
}

impl Over {
    /// The shape of the sum over `x`, if there is one.
    fn reduced(&self, x: &Shape) -> Option<Shape> {
        match (self, x.dims()) {
            (Self::All(shape), _) => Some(shape.clone()),
            (Self::Rows, [.., last]) => Some(Shape::from([*last])),
            (Self::Last, [rows @ .., _]) => Some(Shape::from(rows)),
            (Self::Rows | Self::Last, []) => None,
        }
    }

    /// Where element `i` of a tensor of shape `x` goes: `(i / inner) mod period`.
    fn strides(&self, x: &Shape) -> (usize, usize) {
        match self {
            Self::All(_) => (1, 1),
            Self::Rows => (1, x.last()),
            Self::Last => (x.last(), x.rows()),
        }
    }
}

/// `out = factor · Σ x` over all axes, all but the last, or the last. Gradient: `dx = factor · dout`, broadcast
/// ([`Broadcast`]).
#[derive(Debug)]
pub(crate) struct Reduce {
    pub(crate) over: Over,
    pub(crate) factor: f32,
    /// The variant for sums along the last axis; the adapter's default if not given.
    pub(crate) variant: Option<RowVariant>,
}

impl Reduce {
    /// A sum times `factor`.
    pub(crate) fn new(over: Over, factor: f32) -> Self {
        Self { over, factor, variant: None }
    }
}

impl Op for Reduce {
    fn name(&self) -> &'static str {
        match self.over {
            Over::All(_) => "sum",
            Over::Rows => "sum_rows",
            Over::Last => "sum_last",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let x = rows::same_f32(self.name(), inputs, 1)?.remove(0);
        if x.shape.numel() == 0 {
            return Err(Error::shape(self.name(), format!("{x} has no elements")));
        }
        match self.over.reduced(&x.shape) {
            Some(shape) => Ok(vec![TensorType::f32(shape)]),
            None => Err(Error::shape(self.name(), "a scalar has no last axis")),
        }
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        let shape = cx.graph.shape(cx.inputs[0]).clone();
        let back = Broadcast { over: self.over.clone(), factor: self.factor, shape };
        Ok(vec![Some(cx.graph.put1(back, &[dout])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let x = inputs[0];
        let (inner, period) = self.over.strides(&x.shape);
        let mut out = Array::zeros(self.over.reduced(&x.shape).unwrap_or_default());
        for (i, value) in x.data.iter().enumerate() {
            out.data[(i / inner) % period] += value * f64::from(self.factor);
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        match self.over {
            Over::All(_) => rows::total_sum(cx, x, out, self.factor),
            Over::Rows => rows::column_sum(cx, x, out, self.factor),
            Over::Last => {
                let columns = x.shape.last();
                let variant = RowVariant::choose(self.variant, cx.caps(), x.shape.rows(), columns);
                rows::row_sum(cx, variant, x, out, columns, self.factor)
            }
        }
    }
}

/// `out[…, c] = factor · x`, with `x` repeated along the axes that [`Reduce`] sums; f32.
///
/// Gradient: `dx = factor · Σ dout` over those axes.
#[derive(Debug)]
pub(crate) struct Broadcast {
    over: Over,
    factor: f32,
    shape: Shape,
}

impl Op for Broadcast {
    fn name(&self) -> &'static str {
        "broadcast"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let x = rows::same_f32(self.name(), inputs, 1)?.remove(0);
        let wanted = self.over.reduced(&self.shape);
        if wanted.as_ref() == Some(&x.shape) {
            return Ok(vec![TensorType::f32(self.shape.clone())]);
        }
        Err(Error::shape(self.name(), format!("{x} can't be broadcast to shape {}", self.shape)))
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.put1(Reduce::new(self.over.clone(), self.factor), &[dout])?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (inner, period) = self.over.strides(&self.shape);
        let value = |i: usize| inputs[0].data[(i / inner) % period] * f64::from(self.factor);
        Ok(vec![Array::from_fn(self.shape.clone(), value)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, out) = (cx.input(0), cx.output(0));
        let (inner, period) = self.over.strides(&self.shape);
        let count = out.numel();
        let width = rows::width(count);
        let dispatch = Dispatch::new(&BROADCAST).snippet(rows::elements(width)).param(count / width);
        let dispatch = dispatch.param(inner).param(period).param_f32(self.factor).read(x).write(out);
        cx.dispatch(dispatch.groups_for(count / width, 64).flops(count as u64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    // The values have a mean, so that the sums do not cancel and a relative error means something.
    let x = |shape: &[usize]| vec![Feed::normal_scaled("x", shape, 0.5, 1.0)];
    let tolerance = Tolerance { nmse: 1e-12, worst: 2e-6 };
    for shape in [&[1][..], &[257], &[31, 33], &[3, 70_001], &[8, 33_000]] {
        let case = Case::new(format!("sum {shape:?}"), x(shape), |g, x| Ok(vec![sum(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
        let case = Case::new(format!("mean {shape:?}"), x(shape), |g, x| Ok(vec![mean(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    for shape in [&[1, 1][..], &[257], &[1, 31], &[64, 4], &[65, 33], &[3, 31, 260], &[9001, 8], &[1000, 257]] {
        let case = Case::new(format!("sum_rows {shape:?}"), x(shape), |g, x| Ok(vec![sum_rows(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    for shape in [&[1, 1][..], &[257], &[31, 1], &[33, 31], &[2, 5, 1028], &[3, 2049]] {
        for variant in RowVariant::ALL {
            let case = Case::new(format!("sum_last {shape:?} {variant:?}"), x(shape), move |g, x| {
                let op = Reduce { variant: Some(variant), ..Reduce::new(Over::Last, 1.0) };
                Ok(vec![g.put1(op, &[x[0]])?])
            });
            cases.push(case.tolerance(tolerance, tolerance));
        }
        let case = Case::new(format!("mean_last {shape:?}"), x(shape), |g, x| Ok(vec![mean_last(g, x[0])?]));
        cases.push(case.tolerance(tolerance, tolerance));
    }
    // The gradient of a gradient: a sum of a broadcast.
    let name = "sum_last through broadcast [17, 36]";
    cases.push(Case::new(name, x(&[17, 36]), |g, x| {
        let total = sum_last(g, x[0])?;
        let back = g.differentiate_from(&[(total, total)], &[x[0]])?;
        back[0].map(|t| vec![t]).ok_or_else(|| Error::Graph("no gradient".into()))
    }));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn misfits_are_refused() {
        let mut g = Graph::new();
        let scalar = g.input("scalar", Shape::default(), DType::F32).unwrap();
        let message = sum_last(&mut g, scalar).unwrap_err().to_string();
        assert!(message.contains("sum_last") && message.contains("no last axis"), "{message}");
        let empty = g.input("empty", [0, 3], DType::F32).unwrap();
        let message = mean(&mut g, empty).unwrap_err().to_string();
        assert!(message.contains("no elements"), "{message}");
        let ids = g.input("ids", [4], DType::U32).unwrap();
        assert!(sum(&mut g, ids).unwrap_err().to_string().contains("u32"));
    }

    #[test]
    fn results_have_the_shapes_they_should() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3, 5], DType::F32).unwrap();
        let (all, rows, last) = (sum(&mut g, x).unwrap(), sum_rows(&mut g, x).unwrap(), sum_last(&mut g, x).unwrap());
        assert_eq!(g.shape(all).dims(), &[] as &[usize]);
        assert_eq!(g.shape(rows).dims(), &[5]);
        assert_eq!(g.shape(last).dims(), &[2, 3]);
    }
}
