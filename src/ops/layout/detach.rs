//! Stops gradients.

use crate::case::{Case, Feed};
use crate::error::Result;
use crate::graph::{Alias, Array, Gradient, Graph, Op, Tensor};
use crate::kernel::Launch;
use crate::ops::mul;
use crate::shape::TensorType;

/// The same values in the same memory; gradients do not flow through it to `x`.
///
/// # Errors
/// None today.
pub fn detach(g: &mut Graph, x: Tensor) -> Result<Tensor> {
    g.put1(Detach, &[x])
}

/// See [`detach`].
#[derive(Debug)]
struct Detach;

impl Op for Detach {
    fn name(&self) -> &'static str {
        "detach"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        Ok(inputs[..1].to_vec())
    }

    fn gradient(&self, _cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![inputs[0].clone()])
    }

    fn launch(&self, _cx: &mut Launch<'_>) -> Result<()> {
        Ok(())
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::View(0))
    }
}

/// The conformance cases. Detached values are not differentiated: a finite difference would include them.
pub(super) fn cases() -> Vec<Case> {
    let feeds = vec![Feed::normal("x", [5, 6]).fixed(), Feed::normal("y", [5, 6])];
    let case = Case::new("detach [5, 6]", feeds, |g, x| {
        let still = detach(g, x[0])?;
        Ok(vec![mul(g, still, x[1])?])
    });
    vec![case]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops;

    #[test]
    fn gradients_end_here() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [3], DType::F32)?;
        let held = detach(&mut g, x)?;
        let square = mul(&mut g, held, held)?;
        let both = ops::add(&mut g, square, x)?;
        let loss = ops::sum(&mut g, square)?;
        assert_eq!(g.clone().differentiate(loss, &[x])?, [None]);
        let loss = ops::sum(&mut g, both)?;
        let gradient = g.differentiate(loss, &[x])?[0].ok_or(crate::Error::Graph("no gradient".into()))?;
        let values = [("x".to_owned(), Array::new([3], vec![1.0, 2.0, 3.0])?)].into();
        assert_eq!(g.evaluate(&values, &[gradient])?[0].data, [1.0; 3]);
        Ok(())
    }
}
