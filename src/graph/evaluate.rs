//! Evaluates a graph on the CPU in f64, and computes finite differences of it.

use super::{Array, Graph, Kind, Tensor};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// The values of inputs, parameters and states by name.
pub type Values = HashMap<String, Array>;

impl Graph {
    /// Computes `wanted` from the values of inputs, parameters and states. States without a value are zero.
    ///
    /// Values are not rounded to the graph's element types: the result is exact up to f64.
    ///
    /// # Errors
    /// [`Error::Input`] if a value is missing, or its shape or number of elements is wrong;
    /// [`Error::Graph`] if a tensor is of another graph; the errors of the ops' references.
    pub fn evaluate(&self, values: &Values, wanted: &[Tensor]) -> Result<Vec<Array>> {
        wanted.iter().try_for_each(|tensor| self.check_handle(*tensor))?;
        let mut live = vec![false; self.nodes.len()];
        for tensor in wanted {
            live[tensor.node as usize] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if live[index] {
                for input in &self.nodes[index].inputs {
                    live[input.node as usize] = true;
                }
            }
        }
        let mut results: Vec<Vec<Array>> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            if !live[index] {
                results.push(Vec::new());
                continue;
            }
            let outputs = match &node.kind {
                Kind::Input(name) | Kind::Parameter(name) => {
                    let value = values.get(name);
                    vec![value.cloned().ok_or_else(|| Error::input(name, "this input has no value"))?]
                }
                Kind::State(name) => {
                    let zeros = || Array::zeros(node.outputs[0].shape.clone());
                    vec![values.get(name).cloned().unwrap_or_else(zeros)]
                }
                Kind::Constant(value) => vec![value.value().into_owned()],
                Kind::Op(op) => {
                    let inputs: Vec<&Array> =
                        node.inputs.iter().map(|t| &results[t.node as usize][t.output as usize]).collect();
                    op.reference(&inputs)?
                }
            };
            for (value, ty) in outputs.iter().zip(&node.outputs) {
                if value.shape != ty.shape {
                    let message = format!("the value has shape {}, but the graph expects {}", value.shape, ty.shape);
                    return Err(Error::input(&node.label, message));
                }
                if value.data.len() != ty.shape.numel() {
                    let message = format!("the value has {} elements, but its shape is {}", value.data.len(), ty.shape);
                    return Err(Error::input(&node.label, message));
                }
            }
            results.push(outputs);
        }
        Ok(wanted.iter().map(|t| results[t.node as usize][t.output as usize].clone()).collect())
    }
}

/// The derivative of the scalar `loss` with respect to element `index` of the value `name`, by central differences of step `step`.
///
/// # Errors
/// [`Error::Input`] if there is no such value or element; those of [`Graph::evaluate`].
pub fn finite_difference(
    graph: &Graph,
    values: &Values,
    loss: Tensor,
    name: &str,
    index: usize,
    step: f64,
) -> Result<f64> {
    let mut moved = values.clone();
    let mut at = |delta: f64| -> Result<f64> {
        let (value, element) = (moved.get_mut(name), values.get(name).and_then(|value| value.data.get(index)));
        let (Some(value), Some(element)) = (value, element) else {
            return Err(Error::input(name, format!("no value of this name has an element {index}")));
        };
        value.data[index] = element + delta;
        Ok(graph.evaluate(&moved, &[loss])?[0].data[0])
    };
    Ok((at(step)? - at(-step)?) / (2.0 * step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::ops;

    #[test]
    fn a_tensor_of_another_graph_is_refused() -> Result<()> {
        let mut other = Graph::new();
        let x = other.input("x", [2, 3], DType::F32)?;
        let stranger = ops::softmax(&mut other, x)?;
        let error = Graph::new().evaluate(&Values::new(), &[stranger]).unwrap_err().to_string();
        assert!(error.contains("another graph"), "{error}");
        Ok(())
    }

    #[test]
    fn a_value_with_too_little_data_is_named() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 3], DType::F32)?;
        let y = ops::softmax(&mut g, x)?;
        let values = Values::from([("x".to_owned(), Array { shape: [2, 3].into(), data: vec![0.0; 5] })]);
        let error = g.evaluate(&values, &[y]).unwrap_err().to_string();
        assert_eq!(error, "x: the value has 5 elements, but its shape is [2, 3]");
        Ok(())
    }
}
