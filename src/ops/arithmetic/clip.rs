//! Values within limits.

use crate::case::{Case, Feed};
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows;
use crate::shape::TensorType;

static CLIP: Kernel = kernel!("arithmetic/clip");
static CLIP_BACKWARD: Kernel = kernel!("arithmetic/clip_backward");

/// `out[i] = x[i]`, or the nearer of `-limit` and `limit` where it is outside: f32 of any shape.
///
/// Gradient: `dx[i] = dout[i]` where `|x[i]| ≤ limit`, else 0.
///
/// # Errors
/// [`Error::Input`] if the limit is not a positive number; [`Error::Shape`] if `x` is not f32.
pub fn clip(g: &mut Graph, x: Tensor, limit: f32) -> Result<Tensor> {
    if !(limit > 0.0 && limit.is_finite()) {
        return Err(Error::input("clip limit", format!("{limit} is not a positive number")));
    }
    g.put1(Clip { limit, backward: false }, &[x])
}

/// See [`clip`]. Inputs: x, and of the gradient dout.
#[derive(Debug)]
struct Clip {
    limit: f32,
    backward: bool,
}

impl Op for Clip {
    fn name(&self) -> &'static str {
        if self.backward { "clip_backward" } else { "clip" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        rows::same_f32(self.name(), inputs, if self.backward { 2 } else { 1 })
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        if self.backward {
            return Err(Error::NotDifferentiable { op: self.name().into() });
        }
        let inputs = [cx.inputs[0], cx.upstream(0)?];
        Ok(vec![Some(cx.graph.put1(Self { limit: self.limit, backward: true }, &inputs)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let limit = f64::from(self.limit);
        Ok(vec![match inputs {
            [x, dout] => x.zip(dout, |x, dout| if x.abs() <= limit { dout } else { 0.0 }),
            _ => inputs[0].map(|x| x.clamp(-limit, limit)),
        }])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let count = cx.output(0).numel();
        let width = rows::width(count);
        let dispatch = Dispatch::new(if self.backward { &CLIP_BACKWARD } else { &CLIP });
        let mut dispatch = dispatch.snippet(rows::elements(width)).param(count / width).param_f32(self.limit);
        for index in 0..=usize::from(self.backward) {
            dispatch = dispatch.read(cx.input(index));
        }
        cx.dispatch(dispatch.write(cx.output(0)).groups_for(count / width, 64).flops(2 * count as u64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let case = |shape: &[usize], limit: f32| {
        let name = format!("clip {shape:?} at {limit}");
        Case::new(name, vec![Feed::normal("x", shape)], move |g, x| Ok(vec![clip(g, x[0], limit)?]))
    };
    vec![case(&[1], 2.0), case(&[31, 3], 0.7), case(&[2, 33, 128], 0.5), case(&[257], 1.3)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;

    #[test]
    fn a_limit_out_of_range_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32)?;
        for limit in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let message = clip(&mut g, x, limit).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
            assert!(message.contains("is not a positive number"), "{message}");
        }
        Ok(())
    }
}
