//! Upper bounds of integer tensors that kernels use as indices without checks.

use super::{Alias, Graph, Kind, Op, Tensor};
use crate::dtype::DType;
use crate::shape::TensorType;

impl Graph {
    /// Whether all lists that an op relies on ([`Op::relies_on`]) are known to be within their bounds.
    pub(super) fn lists_are_bounded(&self, op: &dyn Op, inputs: &[Tensor], types: &[TensorType]) -> bool {
        let holds = |(input, bound): (usize, usize)| {
            let below = inputs.get(input).and_then(|tensor| self.below(*tensor));
            below.is_some_and(|below| below <= bound)
        };
        op.relies_on(types).into_iter().all(holds)
    }

    /// The exclusive upper bound of an integer tensor's values, if it is known.
    fn below(&self, tensor: Tensor) -> Option<usize> {
        let node = self.nodes.get(tensor.node as usize)?;
        let output = tensor.output as usize;
        if node.outputs.get(output)?.dtype != DType::U32 {
            return None;
        }
        match &node.kind {
            Kind::Constant(value) => {
                let most = value.value().data.iter().fold(0.0, |most: f64, x| if *x <= most { most } else { *x });
                (most < f64::from(u32::MAX)).then_some(most as usize + 1)
            }
            Kind::Op(_) if !node.own => None,
            Kind::Op(op) => match node.aliases[output] {
                Some(Alias::View(input)) => self.below(node.inputs[input]),
                Some(Alias::InPlace(_)) => None,
                None => {
                    let types: Vec<TensorType> = node.inputs.iter().map(|t| self.ty(*t).clone()).collect();
                    op.below(output, &types)
                }
            },
            _ => None,
        }
    }
}
