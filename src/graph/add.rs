//! The sum of two tensors, the only op that differentiation itself needs.

use super::{Array, Gradient, Op, Tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{Dispatch, Kernel, Launch, View, elements, kernel, width};
use crate::shape::TensorType;

static ADD: Kernel = kernel!("arithmetic/add");

/// `out = a + b`, elementwise, f32 of the same shape.
///
/// Gradients: `da = dout`, `db = dout`.
#[derive(Debug)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs {
            [a, b] if a == b && a.dtype == DType::F32 => Ok(vec![a.clone()]),
            [a, b] if a == b => Err(Error::shape("add", format!("expected f32, got {a}"))),
            [a, b] => Err(Error::shape("add", format!("{a} and {b} differ"))),
            _ => Err(Error::shape("add", format!("expected 2 tensors, got {}", inputs.len()))),
        }
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(upstream), Some(upstream)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].zip(inputs[1], |a, b| a + b)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (a, b, out) = (cx.input(0), cx.input(1), cx.output(0));
        let width = width(out.numel());
        // Sums of gradients of a large vocabulary can exceed one binding. Windows are multiples of every vector width.
        for range in cx.windows(out.numel()) {
            let count = range.len();
            let part = |view: &View| if view.numel() == count { view.clone() } else { view.window(&range) };
            let dispatch = Dispatch::new(&ADD).snippet(elements(width)).read(part(&a)).read(part(&b)).write(part(&out));
            cx.dispatch(dispatch.param(count / width).groups_for(count / width, 64).flops(count as u64))?;
        }
        Ok(())
    }
}
