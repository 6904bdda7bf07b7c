//! Reverse-mode differentiation: the backward pass as more nodes of the same graph.

use super::{Add, Array, Gradient, Graph, Kind, Tensor};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::TensorType;

impl Graph {
    /// The gradients of the scalar `loss` with respect to the tensors `wrt`; `None` where the loss does not depend on a tensor.
    ///
    /// Gradients of a tensor with several uses are summed in a fixed order, so results are the same on every run.
    ///
    /// # Errors
    /// [`Error::Graph`] if `loss` is not a scalar or a tensor of `wrt` is quantised, [`Error::NotDifferentiable`] if an op in between has no
    /// gradient.
    pub fn differentiate(&mut self, loss: Tensor, wrt: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        // Before the constant below, which could take the node number of a tensor of another graph.
        wrt.iter().chain([&loss]).try_for_each(|tensor| self.check_handle(*tensor))?;
        if self.shape(loss).numel() != 1 {
            return Err(Error::Graph(format!("the loss has shape {}, but it must be a scalar", self.shape(loss))));
        }
        let one = self.constant("one", Array::from_fn(self.shape(loss).clone(), |_| 1.0), DType::F32);
        self.differentiate_from(&[(loss, one)], wrt)
    }

    /// As [`Graph::differentiate`], from given upstream gradients of several tensors.
    ///
    /// # Errors
    /// [`Error::Shape`] if an upstream gradient is not f32 or has another shape than its tensor; [`Error::Graph`] if one of `wrt` is quantised, or a tensor is of another graph.
    pub fn differentiate_from(&mut self, from: &[(Tensor, Tensor)], wrt: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        let ends = from.iter().flat_map(|(tensor, upstream)| [tensor, upstream]);
        wrt.iter().chain(ends).try_for_each(|tensor| self.check_handle(*tensor))?;
        self.check_differentiable(wrt)?;
        let count = self.nodes.len();
        let needs = self.needs_gradient(wrt, count);
        let mut grads: Vec<Vec<Option<Tensor>>> = self.nodes.iter().map(|n| vec![None; n.outputs.len()]).collect();
        for &(tensor, upstream) in from {
            if *self.ty(upstream) != TensorType::f32(self.shape(tensor).clone()) {
                let (found, of) = (self.ty(upstream), self.ty(tensor));
                let what = format!(
                    "the upstream gradient is {found} and its tensor {of}: the gradient must be f32 of the tensor's shape"
                );
                return Err(Error::shape("differentiate", what));
            }
            if (tensor.node as usize) < count {
                self.accumulate(&mut grads, tensor, upstream)?;
            }
        }
        for index in (0..count).rev() {
            let Kind::Op(op) = &self.nodes[index].kind else { continue };
            if !needs[index] || grads[index].iter().all(Option::is_none) {
                continue;
            }
            let (op, inputs) = (op.clone(), self.nodes[index].inputs.clone());
            let outputs: Vec<Tensor> = (0..self.nodes[index].outputs.len() as u32)
                .map(|output| Tensor { node: index as u32, output })
                .collect();
            let needed: Vec<bool> =
                inputs.iter().map(|t| needs[t.node as usize] && self.dtype(*t).is_float()).collect();
            let upstream = grads[index].clone();
            let path = format!("grad.{}", self.nodes[index].label);
            let path = path.rsplit_once('.').map_or(path.as_str(), |(scope, _)| scope).to_owned();
            let found = self.scope(path, |graph| {
                op.gradient(&mut Gradient {
                    graph,
                    inputs: &inputs,
                    outputs: &outputs,
                    upstream: &upstream,
                    needed: &needed,
                })
            })?;
            if found.len() != inputs.len() {
                return Err(Error::Graph(format!(
                    "{} returned {} gradients for {} inputs",
                    op.name(),
                    found.len(),
                    inputs.len()
                )));
            }
            for ((input, gradient), needed) in inputs.iter().zip(found).zip(&needed) {
                if let (Some(gradient), true) = (gradient, needed) {
                    self.check_handle(gradient)?;
                    if self.dtype(gradient) != DType::F32 {
                        return Err(Error::shape(
                            op.name(),
                            format!("its gradient is {}, but must be f32", self.ty(gradient)),
                        ));
                    }
                    if self.shape(gradient) != self.shape(*input) {
                        let what = format!(
                            "its gradient has shape {}, but its input {}",
                            self.shape(gradient),
                            self.shape(*input)
                        );
                        return Err(Error::shape(op.name(), what));
                    }
                    self.accumulate(&mut grads, *input, gradient)?;
                }
            }
        }
        Ok(wrt.iter().map(|t| grads.get(t.node as usize).and_then(|g| g[t.output as usize])).collect())
    }

    /// Refuses gradients with respect to quantised weights.
    fn check_differentiable(&self, wrt: &[Tensor]) -> Result<()> {
        let Some(tensor) = wrt.iter().find(|t| self.dtype(**t).is_quantised()) else { return Ok(()) };
        let (label, ty) = (&self.nodes[tensor.node as usize].label, self.ty(*tensor));
        let what = "quantised weights are for inference and have no gradient; load the model as f32 to train it";
        Err(Error::Graph(format!("{label} is {ty}: {what}")))
    }

    /// Which of the first `count` nodes depend on a tensor of `wrt`.
    fn needs_gradient(&self, wrt: &[Tensor], count: usize) -> Vec<bool> {
        let mut needs = vec![false; count];
        for tensor in wrt {
            needs[tensor.node as usize] = true;
        }
        for index in 0..count {
            needs[index] |= self.nodes[index].inputs.iter().any(|t| needs[t.node as usize]);
        }
        needs
    }

    fn accumulate(&mut self, grads: &mut [Vec<Option<Tensor>>], tensor: Tensor, gradient: Tensor) -> Result<()> {
        let slot = grads[tensor.node as usize][tensor.output as usize];
        let sum = match slot {
            None => gradient,
            Some(before) => self.put1(Add, &[before, gradient])?,
        };
        grads[tensor.node as usize][tensor.output as usize] = Some(sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn a_tensor_of_another_graph_is_refused() {
        let mut other = Graph::new();
        let x = other.parameter("x", [2, 3], DType::F32).unwrap();
        let y = ops::softmax(&mut other, x).unwrap();
        let stranger = ops::sum(&mut other, y).unwrap();
        let mut g = Graph::new();
        let x = g.parameter("x", [1], DType::F32).unwrap();
        let errors = [
            ops::softmax(&mut g, stranger).unwrap_err(),
            g.differentiate(stranger, &[x]).unwrap_err(),
            g.differentiate(x, &[stranger]).unwrap_err(),
            g.differentiate_from(&[(x, stranger)], &[x]).unwrap_err(),
        ];
        for error in errors {
            assert!(error.to_string().contains("another graph"), "{error}");
        }
    }

    #[test]
    fn an_upstream_gradient_is_f32() {
        let mut g = Graph::new();
        let x = g.parameter("x", [3], DType::F32).unwrap();
        let y = ops::softmax(&mut g, x).unwrap();
        let whole = g.input("whole", [3], DType::U32).unwrap();
        let error = g.differentiate_from(&[(y, whole)], &[x]).unwrap_err().to_string();
        let what =
            "the upstream gradient is u32[3] and its tensor f32[3]: the gradient must be f32 of the tensor's shape";
        assert_eq!(error, format!("differentiate: {what}"));
    }
}
