//! A sum of matrices with one factor per row of the second.

use crate::case::{Case, Feed};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows::{self, RowVariant};
use crate::shape::TensorType;

static GATED_ADD: Kernel = kernel!("arithmetic/gated_add");
static BACKWARD: [Kernel; 2] =
    [kernel!("arithmetic/gated_add_backward_threads"), kernel!("arithmetic/gated_add_backward_workgroup")];

/// `out[n, c] = x[n, c] + gate[n] · y[n, c]`; `x` and `y` (N, C), `gate` (N), f32.
///
/// Gradients: `dx = dout`, `dy[n, c] = gate[n] dout[n, c]`, `dgate[n] = Σ_c dout[n, c] y[n, c]`.
///
/// # Errors
/// [`Error::Shape`] if x and y are not matrices of the same type, or the gate has another number of rows.
pub fn gated_add(g: &mut Graph, x: Tensor, y: Tensor, gate: Tensor) -> Result<Tensor> {
    g.put1(GatedAdd { variant: None }, &[x, y, gate])
}

/// See [`gated_add`].
#[derive(Debug)]
pub(crate) struct GatedAdd {
    /// The variant of the backward kernel; the adapter's default if not given.
    pub(crate) variant: Option<RowVariant>,
}

impl Op for GatedAdd {
    fn name(&self) -> &'static str {
        "gated_add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, y, gate] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 3 tensors, got {}", inputs.len())));
        };
        let types = rows::same_f32(self.name(), &[x.clone(), y.clone()], 2)?;
        if x.shape.rank() != 2 || x.shape.numel() == 0 || *gate != TensorType::f32([x.shape.rows()]) {
            let what = format!("expected matrices and one factor per row, got {x} and the factors {gate}");
            return Err(Error::shape(self.name(), what));
        }
        Ok(types)
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let dout = cx.upstream(0)?;
        let (y, gate) = (cx.inputs[1], cx.inputs[2]);
        if !cx.needed[1] && !cx.needed[2] {
            return Ok(vec![Some(dout), None, None]);
        }
        let found = cx.graph.put(GatedAddBackward { variant: self.variant }, &[dout, y, gate])?;
        Ok(vec![Some(dout), Some(found[0]), Some(found[1])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, y, gate) = (inputs[0], inputs[1], inputs[2]);
        let columns = x.shape.last();
        Ok(vec![Array::from_fn(x.shape.clone(), |i| x.data[i] + gate.data[i / columns] * y.data[i])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let out = cx.output(0);
        let columns = out.shape.last();
        let width = rows::width(columns);
        let count = out.numel() / width;
        let mut dispatch = Dispatch::new(&GATED_ADD).snippet(rows::elements(width));
        for index in 0..3 {
            dispatch = dispatch.read(cx.input(index));
        }
        let flops = 2 * out.numel() as u64;
        cx.dispatch(dispatch.write(out).param(count).param(columns / width).groups_for(count, 64).flops(flops))
    }
}

/// The gradients of [`GatedAdd`] with respect to y and the gate. Inputs: dout, y (N, C), gate (N); outputs: dy (N, C), dgate (N).
#[derive(Debug)]
struct GatedAddBackward {
    variant: Option<RowVariant>,
}

impl Op for GatedAddBackward {
    fn name(&self) -> &'static str {
        "gated_add_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(vec![inputs[1].clone(), inputs[2].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (dout, y, gate) = (inputs[0], inputs[1], inputs[2]);
        let columns = y.shape.last();
        let dy = Array::from_fn(y.shape.clone(), |i| dout.data[i] * gate.data[i / columns]);
        let dot = |n: usize| dout.row(n).iter().zip(y.row(n)).map(|(d, y)| d * y).sum();
        Ok(vec![dy, Array::from_fn(gate.shape.clone(), dot)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let y = cx.input(1);
        let (rows, columns) = (y.shape.rows(), y.shape.last());
        let variant = RowVariant::choose(self.variant, cx.caps(), rows, columns);
        let mut dispatch = variant.over_rows(cx.caps(), &BACKWARD, rows, columns);
        for index in 0..3 {
            dispatch = dispatch.read(cx.input(index));
        }
        cx.dispatch(dispatch.write(cx.output(0)).write(cx.output(1)).flops(3 * y.numel() as u64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns) in [(1, 1), (31, 33), (33, 257), (257, 4), (5, 1028)] {
        for variant in RowVariant::ALL {
            let feeds = vec![
                Feed::normal("x", [rows, columns]),
                Feed::normal("y", [rows, columns]),
                Feed::normal("gate", [rows]),
            ];
            cases.push(Case::new(format!("gated_add [{rows}, {columns}] {variant:?}"), feeds, move |g, x| {
                Ok(vec![g.put1(GatedAdd { variant: Some(variant) }, x)?])
            }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn a_gate_of_another_length_is_refused() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32).unwrap();
        let gate = g.input("gate", [3], DType::F32).unwrap();
        let message = gated_add(&mut g, x, x, gate).unwrap_err().to_string();
        assert!(message.contains("one factor per row, got f32[2, 3] and the factors f32[3]"), "{message}");
    }
}
