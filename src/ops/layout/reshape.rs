//! Reshaping without a copy.

use crate::case::{Case, Feed, Tolerance};
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Gradient, Graph, Op, Tensor};
use crate::kernel::Launch;
use crate::shape::{Shape, TensorType};

/// The same elements in another shape: no work, the memory is shared. Any element type.
///
/// Gradient: the upstream gradient under the shape of `x`.
///
/// # Errors
/// [`Error::Shape`] if the element counts differ.
pub fn reshape(g: &mut Graph, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    if *g.shape(x) == shape {
        return Ok(x);
    }
    g.put1(Reshape { shape }, &[x])
}

/// See [`reshape`].
#[derive(Debug)]
struct Reshape {
    shape: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let ty = &inputs[0];
        if ty.shape.numel() != self.shape.numel() {
            let what =
                format!("{ty} has {} elements, shape {} takes {}", ty.shape.numel(), self.shape, self.shape.numel());
            return Err(Error::shape("reshape", what));
        }
        Ok(vec![TensorType::new(self.shape.clone(), ty.dtype)])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let (upstream, shape) = (cx.upstream(0)?, cx.graph.shape(cx.inputs[0]).clone());
        Ok(vec![Some(reshape(cx.graph, upstream, shape)?)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].reshape(self.shape.clone())?])
    }

    fn launch(&self, _cx: &mut Launch<'_>) -> Result<()> {
        Ok(())
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::View(0))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let case = Case::new("reshape", vec![Feed::normal("x", [3, 10])], |g, x| Ok(vec![reshape(g, x[0], [5, 6])?]));
    vec![case.tolerance(Tolerance::EXACT, Tolerance::EXACT)]
}
