//! Fusion: moves an op into the kernel that reads its result or that computes its operand.

use super::{Alias, Graph, Kind, Node, Op, Tensor, aliases};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::sync::Arc;

impl Graph {
    /// The same graph with fused ops: an op goes into the first reader of its result where [`Op::prologue`] offers it (a residual sum into the
    /// next norm), or into the producer of its operand where [`Op::epilogue`] offers it and nothing else reads that operand. Handles stay
    /// valid, except those of operands that are no longer computed.
    #[must_use]
    pub fn fused(&self) -> Self {
        let mut graph = self.clone();
        graph.fuse_prologues();
        let live = graph.live();
        let mut uses = graph.uses(&live);
        for (index, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            while let Some((producer, position, op)) = graph.fusion(index, &uses) {
                let mut inputs = graph.nodes[producer].inputs.clone();
                inputs.extend(
                    graph.nodes[index].inputs.iter().enumerate().filter(|(i, _)| *i != position).map(|(_, t)| *t),
                );
                let types: Vec<TensorType> = inputs.iter().map(|t| graph.ty(*t).clone()).collect();
                let Ok(aliases) = aliases(op.as_ref(), &types, &graph.nodes[index].outputs) else { break };
                uses.remove(&graph.nodes[index].inputs[position]);
                graph.nodes[index].inputs = inputs;
                graph.nodes[index].aliases = aliases;
                graph.nodes[index].label = relabelled(&graph.nodes[producer].label, op.name());
                graph.nodes[index].kind = Kind::Op(op);
                graph.nodes[index].own &= graph.nodes[producer].own;
            }
        }
        graph
    }

    /// Fuses ops into the first node that reads their result; later readers read the fused node's output.
    fn fuse_prologues(&mut self) {
        let live = self.live();
        let mut first_reader: HashMap<Tensor, usize> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| live[*index]) {
            node.inputs.iter().for_each(|tensor| {
                first_reader.entry(*tensor).or_insert(index);
            });
        }
        let mut moved: HashMap<Tensor, Tensor> = HashMap::new();
        for index in (0..self.nodes.len()).filter(|index| live[*index]) {
            for tensor in &mut self.nodes[index].inputs {
                *tensor = moved.get(tensor).copied().unwrap_or(*tensor);
            }
            let first = |tensor: &Tensor| first_reader.get(tensor) == Some(&index);
            let Some((sum, fused)) = self.prologue(index, first) else { continue };
            moved.insert(sum, Tensor { node: index as u32, output: fused.outputs.len() as u32 - 1 });
            self.nodes[index] = fused;
        }
        for (_, tensor) in &mut self.outputs {
            *tensor = moved.get(tensor).copied().unwrap_or(*tensor);
        }
    }

    /// An input that node `index` reads first and can compute itself, and the fused node.
    fn prologue(&self, index: usize, first: impl Fn(&Tensor) -> bool) -> Option<(Tensor, Node)> {
        let node = &self.nodes[index];
        let Kind::Op(consumer) = &node.kind else { return None };
        node.inputs.iter().enumerate().find_map(|(position, tensor)| {
            let producer = &self.nodes[tensor.node as usize];
            let Kind::Op(op) = &producer.kind else { return None };
            if producer.outputs.len() != 1 || !first(tensor) || self.overwritten_between(tensor.node as usize, index) {
                return None;
            }
            let op = consumer.prologue(op.as_ref(), position)?;
            let others = node.inputs.iter().enumerate().filter(|(i, _)| *i != position).map(|(_, t)| *t);
            let inputs: Vec<Tensor> = producer.inputs.iter().copied().chain(others).collect();
            let outputs: Vec<TensorType> = node.outputs.iter().chain(&producer.outputs).cloned().collect();
            let types: Vec<TensorType> = inputs.iter().map(|t| self.ty(*t).clone()).collect();
            let aliases = aliases(op.as_ref(), &types, &outputs).ok()?;
            let (label, own) = (relabelled(&node.label, op.name()), node.own && producer.own);
            Some((*tensor, Node { kind: Kind::Op(op), inputs, outputs, label, own, aliases }))
        })
    }

    /// How many live nodes read each tensor; an output counts as a reader.
    fn uses(&self, live: &[bool]) -> HashMap<Tensor, usize> {
        let mut uses = HashMap::new();
        let read = self.nodes.iter().zip(live).filter(|(_, live)| **live).flat_map(|(node, _)| &node.inputs);
        for tensor in read.chain(self.outputs.iter().map(|(_, tensor)| tensor)) {
            *uses.entry(*tensor).or_default() += 1;
        }
        uses
    }

    /// The latest producer of an input of node `index` that can do the node's work, and the fused op.
    fn fusion(&self, index: usize, uses: &HashMap<Tensor, usize>) -> Option<(usize, usize, Arc<dyn Op>)> {
        let node = &self.nodes[index];
        let Kind::Op(consumer) = &node.kind else { return None };
        let mut inputs: Vec<(usize, Tensor)> = node.inputs.iter().copied().enumerate().collect();
        inputs.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.node));
        inputs.into_iter().find_map(|(position, tensor)| {
            let producer = tensor.node as usize;
            let Kind::Op(op) = &self.nodes[producer].kind else { return None };
            let sole_reader = self.nodes[producer].outputs.len() == 1 && uses.get(&tensor) == Some(&1);
            if !sole_reader || self.overwritten_between(producer, index) {
                return None;
            }
            Some((producer, position, op.epilogue(consumer.as_ref(), position)?))
        })
    }

    /// Whether an input of node `producer` is updated in place before node `index`.
    fn overwritten_between(&self, producer: usize, index: usize) -> bool {
        let read: Vec<Tensor> = self.nodes[producer].inputs.iter().map(|t| self.root(*t)).collect();
        (producer + 1..index).any(|between| {
            (0..self.nodes[between].outputs.len()).any(|output| match self.alias(between, output) {
                Some(Alias::InPlace(input)) => read.contains(&self.root(self.nodes[between].inputs[input])),
                _ => false,
            })
        })
    }
}

/// A label with another op's name after its scope.
fn relabelled(label: &str, name: &str) -> String {
    label.rsplit_once('.').map_or_else(|| name.to_owned(), |(scope, _)| format!("{scope}.{name}"))
}

#[cfg(test)]
mod tests {
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::graph::checkpoint::tests::results;
    use crate::graph::{Graph, Tensor};
    use crate::ops;

    const WIDTH: usize = 8;

    fn gain(g: &mut Graph, name: &str) -> Result<Tensor> {
        g.parameter(name, [WIDTH], DType::F32)
    }

    /// Two blocks with a norm in front of a product, a norm behind them, the loss and its gradients.
    fn model() -> Result<Graph> {
        let mut g = Graph::new();
        let mut x = g.parameter("x", [5, WIDTH], DType::F32)?;
        for layer in 0..2 {
            let weight = g.parameter(&format!("w{layer}"), [WIDTH, WIDTH], DType::F32)?;
            let gain = gain(&mut g, &format!("gain{layer}"))?;
            let normed = ops::rms_norm(&mut g, x, gain, 1e-5)?;
            let branch = ops::matmul(&mut g, normed, weight)?;
            x = ops::add(&mut g, branch, x)?;
        }
        let (last, bias) = (gain(&mut g, "last")?, gain(&mut g, "bias")?);
        let y = ops::layer_norm(&mut g, x, last, Some(bias), 1e-5)?;
        let y = ops::mul(&mut g, y, x)?;
        let loss = ops::mean(&mut g, y)?;
        let parameters: Vec<Tensor> = g.parameters().map(|(_, tensor)| tensor).collect();
        for (index, gradient) in g.differentiate(loss, &parameters)?.into_iter().enumerate() {
            g.output(&format!("grad{index}"), gradient.unwrap_or(loss))?;
        }
        g.output("sum", x)?;
        g.output("loss", loss)?;
        Ok(g)
    }

    fn count(g: &Graph, name: &str) -> usize {
        let live = g.live();
        g.nodes().iter().zip(live).filter(|(node, live)| *live && node.label.ends_with(name)).count()
    }

    #[test]
    fn residual_sums_go_into_norms_and_those_of_gradients_into_theirs() -> Result<()> {
        let plain = model()?;
        let fused = plain.fused();
        let counts = |g: &Graph| ["add", "rms_norm", "add_rms_norm", "add_layer_norm"].map(|name| count(g, name));
        assert_eq!(counts(&plain)[2..], [0, 0]);
        assert_eq!(counts(&fused), [0, 2, 1, 1], "{fused}");
        let [before, after] = [&plain, &fused].map(|g| g.live().into_iter().filter(|live| *live).count());
        // Two sums, and the sums of the gradients of each block's residual stream.
        assert_eq!(before - after, 5, "{fused}");
        assert_eq!(results(&plain), results(&fused));
        Ok(())
    }

    #[test]
    fn a_sum_that_is_read_before_its_norm_stays() -> Result<()> {
        let mut g = Graph::new();
        let [x, y] = [g.input("x", [5, WIDTH], DType::F32)?, g.input("y", [5, WIDTH], DType::F32)?];
        let sum = ops::add(&mut g, x, y)?;
        let early = ops::mul(&mut g, sum, x)?;
        let gain = gain(&mut g, "gain")?;
        let normed = ops::rms_norm(&mut g, sum, gain, 1e-5)?;
        let out = ops::mul(&mut g, early, normed)?;
        g.output("out", out)?;
        let fused = g.fused();
        assert_eq!(fused.to_string(), g.to_string());
        Ok(())
    }
}
