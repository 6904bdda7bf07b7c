//! Live nodes: those that an output, or an update of a state or parameter, depends on.

use super::{Alias, Graph, Kind, Tensor};
use std::collections::{HashMap, HashSet};

impl Graph {
    /// For each node, whether an output, or an update of a state or parameter, depends on it.
    pub(crate) fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for (_, tensor) in &self.outputs {
            live[tensor.node as usize] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            let node = &self.nodes[index];
            live[index] |= (0..node.outputs.len()).any(|output| match self.alias(index, output) {
                Some(Alias::InPlace(input)) => self.is_persistent(node.inputs[input]),
                _ => false,
            });
            if live[index] {
                for input in &node.inputs {
                    live[input.node as usize] = true;
                }
            }
        }
        live
    }

    /// How output `output` of node `index` shares memory with an input.
    pub(crate) fn alias(&self, index: usize, output: usize) -> Option<Alias> {
        self.nodes[index].aliases.get(output).copied().flatten()
    }

    /// The tensor that owns the memory of a tensor.
    pub(crate) fn root(&self, tensor: Tensor) -> Tensor {
        match self.alias(tensor.node as usize, tensor.output as usize) {
            Some(Alias::View(input) | Alias::InPlace(input)) => {
                self.root(self.nodes[tensor.node as usize].inputs[input])
            }
            None => tensor,
        }
    }

    /// Whether an op of the graph updates a tensor in place.
    pub(crate) fn updates_in_place(&self, tensor: Tensor) -> bool {
        self.nodes.iter().enumerate().any(|(index, node)| {
            let changes =
                |output| matches!(self.alias(index, output), Some(Alias::InPlace(i)) if node.inputs[i] == tensor);
            (0..node.outputs.len()).any(changes)
        })
    }

    /// The tensors whose memory an op updates in place.
    pub(crate) fn updated_roots(&self) -> HashSet<Tensor> {
        self.last_updates(self.nodes.len()).into_keys().collect()
    }

    /// The tensors whose memory one of the first `count` nodes updates in place, each with the last such node.
    pub(super) fn last_updates(&self, count: usize) -> HashMap<Tensor, usize> {
        let mut last = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate().take(count) {
            for output in 0..node.outputs.len() {
                if let Some(Alias::InPlace(input)) = self.alias(index, output) {
                    last.insert(self.root(node.inputs[input]), index);
                }
            }
        }
        last
    }

    /// Whether a tensor is in the memory of a state or parameter.
    fn is_persistent(&self, tensor: Tensor) -> bool {
        matches!(self.nodes[self.root(tensor).node as usize].kind, Kind::Parameter(_) | Kind::State(_))
    }
}
