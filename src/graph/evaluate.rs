//! Evaluation of a whole graph on the CPU in f64, and finite differences on that.

use super::{Array, Graph, Kind, Tensor};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// The values of inputs, parameters and states by name.
pub type Values = HashMap<String, Array>;

impl Graph {
    /// Computes `wanted` from the values of the inputs, parameters and states. States that are not given are zero.
    ///
    /// Values are not rounded to the graph's element types: the result is what exact arithmetic would give, as far as
    /// f64 goes.
    ///
    /// # Errors
    /// [`Error::Input`] if a value is missing or has another shape; the errors of the ops' references.
    pub fn evaluate(&self, values: &Values, wanted: &[Tensor]) -> Result<Vec<Array>> {
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
                    vec![value.cloned().ok_or_else(|| Error::input(name, "no value was given for this input"))?]
                }
                Kind::State(name) => {
                    let zeros = || Array::zeros(node.outputs[0].shape.clone());
                    vec![values.get(name).cloned().unwrap_or_else(zeros)]
                }
                Kind::Constant(value) => vec![value.as_ref().clone()],
                Kind::Op(op) => {
                    let inputs: Vec<&Array> =
                        node.inputs.iter().map(|t| &results[t.node as usize][t.output as usize]).collect();
                    op.reference(&inputs)?
                }
            };
            for (value, ty) in outputs.iter().zip(&node.outputs) {
                if value.shape != ty.shape {
                    let message = format!("the value has shape {}, the graph says {}", value.shape, ty.shape);
                    return Err(Error::input(&node.label, message));
                }
            }
            results.push(outputs);
        }
        Ok(wanted.iter().map(|t| results[t.node as usize][t.output as usize].clone()).collect())
    }
}

/// The derivative of the scalar `loss` by element `index` of the value `name`, by central differences of step `step`.
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
            return Err(Error::input(name, format!("there is no value of this name with an element {index}")));
        };
        value.data[index] = element + delta;
        Ok(graph.evaluate(&moved, &[loss])?[0].data[0])
    };
    Ok((at(step)? - at(-step)?) / (2.0 * step))
}
