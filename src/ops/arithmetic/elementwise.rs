//! Elementwise arithmetic and broadcasts along rows.

use super::reduce::{Over, Reduce, sum_rows};
use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::Add;
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows;
use crate::shape::Shape;
use crate::shape::TensorType;

static BINARY: Kernel = kernel!("arithmetic/elementwise_binary");
static ROW: Kernel = kernel!("arithmetic/elementwise_row");
static AFFINE: Kernel = kernel!("arithmetic/affine");
static SCALE_BY: Kernel = kernel!("arithmetic/scale_by");

/// `a + b`, f32 of one shape. Gradients: `da = db = dout`.
///
/// # Errors
/// [`Error::Shape`] if the types differ or are not f32.
pub fn add(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Add, &[a, b])
}

/// `a − b`, f32 of one shape. Gradients: `da = dout`, `db = −dout`.
///
/// # Errors
/// [`Error::Shape`] if the types differ or are not f32.
pub fn sub(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Binary::Sub, &[a, b])
}

/// `a · b`, element by element, f32 of one shape. Gradients: `da = dout · b`, `db = dout · a`.
///
/// # Errors
/// [`Error::Shape`] if the types differ or are not f32.
pub fn mul(g: &mut Graph, a: Tensor, b: Tensor) -> Result<Tensor> {
    g.put1(Binary::Mul, &[a, b])
}

/// `factor · x`, f32 of any shape. Gradient: `dx = factor · dout`.
///
/// # Errors
/// [`Error::Shape`] if `x` is not f32.
pub fn scale(g: &mut Graph, x: Tensor, factor: f32) -> Result<Tensor> {
    g.put1(Affine { factor, shift: 0.0 }, &[x])
}

/// `x + shift`, f32 of any shape. Gradient: `dx = dout`.
///
/// # Errors
/// [`Error::Shape`] if `x` is not f32.
pub fn add_scalar(g: &mut Graph, x: Tensor, shift: f32) -> Result<Tensor> {
    g.put1(Affine { factor: 1.0, shift }, &[x])
}

/// `out[…, c] = x[…, c] + row[c]`, a bias added to every row: `x` (…, C), `row` (C), f32.
///
/// Gradients: `dx = dout`, `drow = Σ_rows dout`.
///
/// # Errors
/// [`Error::Shape`] if `row` is not as long as the last axis of `x`, or a type is not f32.
pub fn add_row(g: &mut Graph, x: Tensor, row: Tensor) -> Result<Tensor> {
    g.put1(RowWise::Add, &[x, row])
}

/// `out[…, c] = x[…, c] · row[c]`, every row times one row: `x` (…, C), `row` (C), f32.
///
/// Gradients: `dx = dout · row`, `drow = Σ_rows dout · x`.
///
/// # Errors
/// [`Error::Shape`] if `row` is not as long as the last axis of `x`, or a type is not f32.
pub fn mul_row(g: &mut Graph, x: Tensor, row: Tensor) -> Result<Tensor> {
    g.put1(RowWise::Mul, &[x, row])
}

/// `out = x · s`: `x` of any shape, `s` a tensor of one element, f32.
///
/// Gradients: `dx = dout · s`, `ds = Σ dout · x`.
///
/// # Errors
/// [`Error::Shape`] if `s` has more than one element, or a type is not f32.
pub fn scale_by(g: &mut Graph, x: Tensor, s: Tensor) -> Result<Tensor> {
    g.put1(ScaleBy, &[x, s])
}

/// See [`sub`] and [`mul`].
#[derive(Debug)]
enum Binary {
    Sub,
    Mul,
}

impl Op for Binary {
    fn name(&self) -> &'static str {
        match self {
            Self::Sub => "sub",
            Self::Mul => "mul",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, 2)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (dout, a, b) = (cx.upstream(0)?, cx.inputs[0], cx.inputs[1]);
        let da = match self {
            Self::Sub => Some(dout),
            Self::Mul if cx.needed[0] => Some(mul(cx.graph, dout, b)?),
            Self::Mul => None,
        };
        let db = match self {
            _ if !cx.needed[1] => None,
            Self::Sub => Some(scale(cx.graph, dout, -1.0)?),
            Self::Mul => Some(mul(cx.graph, dout, a)?),
        };
        Ok(vec![da, db])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].zip(inputs[1], |a, b| match self {
            Self::Sub => a - b,
            Self::Mul => a * b,
        })])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let operation: u32 = match self {
            Self::Sub => 0,
            Self::Mul => 1,
        };
        rows::elementwise(cx, 1, Dispatch::new(&BINARY).constant("OPERATION", operation))
    }
}

/// `out = factor · x + shift`: [`scale`] and [`add_scalar`].
#[derive(Debug)]
struct Affine {
    factor: f32,
    shift: f32,
}

impl Op for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, 1)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        // A sum with a constant passes the gradient on as it is.
        Ok(vec![Some(if self.factor == 1.0 { dout } else { scale(cx.graph, dout, self.factor)? })])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].map(|x| x * f64::from(self.factor) + f64::from(self.shift))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.output(0).numel();
        let width = rows::width(count);
        let dispatch = Dispatch::new(&AFFINE).snippet(rows::elements(width)).param(count / width);
        let dispatch = dispatch.param_f32(self.factor).param_f32(self.shift).read(cx.input(0)).write(cx.output(0));
        cx.dispatch(dispatch.groups_for(count / width, 64).flops(2 * count as u64))
    }
}

/// See [`add_row`] and [`mul_row`].
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ops) enum RowWise {
    Add,
    Mul,
}

impl Op for RowWise {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "add_row",
            Self::Mul => "mul_row",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, row] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 2 tensors, got {}", inputs.len())));
        };
        if x.shape.rank() == 0 || *row != TensorType::f32([x.shape.last()]) {
            return Err(Error::shape(self.name(), format!("the row {row} does not fit the last axis of {x}")));
        }
        rows::same_f32(self.name(), &inputs[..1], 1)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (dout, x, row) = (cx.upstream(0)?, cx.inputs[0], cx.inputs[1]);
        let dx = match self {
            Self::Add => Some(dout),
            Self::Mul if cx.needed[0] => Some(mul_row(cx.graph, dout, row)?),
            Self::Mul => None,
        };
        let drow = match self {
            _ if !cx.needed[1] => None,
            Self::Add => Some(sum_rows(cx.graph, dout)?),
            Self::Mul => {
                let product = mul(cx.graph, dout, x)?;
                Some(sum_rows(cx.graph, product)?)
            }
        };
        Ok(vec![dx, drow])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, row) = (inputs[0], inputs[1]);
        Ok(vec![Array::from_fn(x.shape.clone(), |i| match self {
            Self::Add => x.data[i] + row.data[i % row.data.len()],
            Self::Mul => x.data[i] * row.data[i % row.data.len()],
        })])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, row, out) = (cx.input(0), cx.input(1), cx.output(0));
        let operation: u32 = match self {
            Self::Add => 0,
            Self::Mul => 1,
        };
        let (count, columns) = (out.numel(), row.numel());
        let width = rows::width(columns);
        let dispatch = Dispatch::new(&ROW).constant("OPERATION", operation).snippet(rows::elements(width));
        let dispatch = dispatch.param(count / width).param(columns / width).read(x).read(row).write(out);
        cx.dispatch(dispatch.groups_for(count / width, 64).flops(count as u64))
    }
}

/// See [`scale_by`].
#[derive(Debug)]
struct ScaleBy;

impl Op for ScaleBy {
    fn name(&self) -> &'static str {
        "scale_by"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, s] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 2 tensors, got {}", inputs.len())));
        };
        if s.shape.numel() != 1 {
            return Err(Error::shape(self.name(), format!("the factor of {x} must have one element, got {s}")));
        }
        rows::same_f32(self.name(), std::slice::from_ref(s), 1)?;
        rows::same_f32(self.name(), std::slice::from_ref(x), 1)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (dout, x, s) = (cx.upstream(0)?, cx.inputs[0], cx.inputs[1]);
        let dx = if cx.needed[0] { Some(scale_by(cx.graph, dout, s)?) } else { None };
        let ds = if cx.needed[1] {
            let product = mul(cx.graph, dout, x)?;
            let total = Reduce::new(Over::All(cx.graph.shape(s).clone()), 1.0);
            Some(cx.graph.put1(total, &[product])?)
        } else {
            None
        };
        Ok(vec![dx, ds])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].map(|x| x * inputs[1].data[0])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        rows::elementwise(cx, 1, Dispatch::new(&SCALE_BY))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let tolerance = Tolerance { nmse: 1e-12, worst: 1e-6 };
    for shape in [&[1][..], &[31, 3], &[2, 33, 128], &[257]] {
        let pair = || vec![Feed::normal("a", shape), Feed::normal("b", shape)];
        let one = || vec![Feed::normal("x", shape)];
        cases.push(Case::new(format!("sub {shape:?}"), pair(), |g, x| Ok(vec![sub(g, x[0], x[1])?])));
        cases.push(Case::new(format!("mul {shape:?}"), pair(), |g, x| Ok(vec![mul(g, x[0], x[1])?])));
        cases.push(Case::new(format!("square {shape:?}"), one(), |g, x| Ok(vec![mul(g, x[0], x[0])?])));
        cases.push(Case::new(format!("scale {shape:?}"), one(), |g, x| Ok(vec![scale(g, x[0], -0.3)?])));
        cases.push(Case::new(format!("add_scalar {shape:?}"), one(), |g, x| Ok(vec![add_scalar(g, x[0], 7.5)?])));
        for factor in [Shape::default(), Shape::from([1])] {
            let feeds = vec![Feed::normal("x", shape), Feed::normal_scaled("s", factor.clone(), 2.0, 0.5)];
            let name = format!("scale_by {shape:?} by {factor}");
            cases.push(Case::new(name, feeds, |g, x| Ok(vec![scale_by(g, x[0], x[1])?])));
        }
    }
    for shape in [&[1, 1][..], &[257], &[31, 33], &[300, 2], &[2, 40, 260]] {
        let last = Shape::from(shape).last();
        let feeds = || vec![Feed::normal("x", shape), Feed::normal("row", [last])];
        cases.push(Case::new(format!("add_row {shape:?}"), feeds(), |g, x| Ok(vec![add_row(g, x[0], x[1])?])));
        cases.push(Case::new(format!("mul_row {shape:?}"), feeds(), |g, x| Ok(vec![mul_row(g, x[0], x[1])?])));
    }
    for shape in [[1, 1], [31, 3], [33, 257]] {
        let feeds = vec![Feed::normal("a", shape), Feed::normal("b", shape)];
        cases.push(Case::new(format!("add {shape:?}"), feeds, |g, x| Ok(vec![add(g, x[0], x[1])?])));
    }
    cases.into_iter().map(|case| case.tolerance(tolerance, Tolerance { nmse: 1e-11, worst: 1e-5 })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn errors_name_both_shapes() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32).unwrap();
        let row = g.input("row", [2], DType::F32).unwrap();
        let ids = g.input("ids", [2, 3], DType::U32).unwrap();
        for (op, message) in [
            ("add_row", add_row(&mut g, x, row).unwrap_err().to_string()),
            ("mul_row", mul_row(&mut g, x, row).unwrap_err().to_string()),
            ("sub", sub(&mut g, x, row).unwrap_err().to_string()),
            ("scale_by", scale_by(&mut g, x, row).unwrap_err().to_string()),
        ] {
            assert!(message.contains(op) && message.contains("[2, 3]") && message.contains("[2]"), "{message}");
        }
        assert!(mul(&mut g, x, ids).unwrap_err().to_string().contains("u32"));
        assert!(scale(&mut g, ids, 2.0).unwrap_err().to_string().contains("u32"));
    }
}
