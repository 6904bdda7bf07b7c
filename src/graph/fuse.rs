//! Fusion: an op that another one's kernel can do while it stores its result is done there.

use super::{Alias, Graph, Kind, Op, Tensor, aliases};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::sync::Arc;

impl Graph {
    /// The same graph with ops fused into the ones whose results they work on, where [`Op::epilogue`] offers it and
    /// nothing else reads the result in between. Handles stay valid, but for those results.
    #[must_use]
    pub fn fused(&self) -> Self {
        let mut graph = self.clone();
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
                graph.nodes[index].kind = Kind::Op(op);
                graph.nodes[index].own &= graph.nodes[producer].own;
            }
        }
        graph
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

    /// The producer of an input of node `index` that can do the node's work, the latest first, and the fused op.
    fn fusion(&self, index: usize, uses: &HashMap<Tensor, usize>) -> Option<(usize, usize, Arc<dyn Op>)> {
        let node = &self.nodes[index];
        let Kind::Op(consumer) = &node.kind else { return None };
        let mut inputs: Vec<(usize, Tensor)> = node.inputs.iter().copied().enumerate().collect();
        inputs.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.node));
        inputs.into_iter().find_map(|(position, tensor)| {
            let producer = tensor.node as usize;
            let Kind::Op(op) = &self.nodes[producer].kind else { return None };
            let alone = self.nodes[producer].outputs.len() == 1 && uses.get(&tensor) == Some(&1);
            if !alone || self.overwritten_between(producer, index) {
                return None;
            }
            Some((producer, position, op.epilogue(consumer.as_ref(), position)?))
        })
    }

    /// Whether something that node `producer` reads is updated in place before node `index`.
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
