//! Rematerialisation: the backward pass computes outputs of activations and norms again instead of keeping them. Such an output is as large
//! as its input, which the gradient needs in any case.

use super::{Graph, Kind, Node, RematerializeInput, Tensor, aliases};
use crate::shape::TensorType;
use std::collections::{HashMap, HashSet};

impl Graph {
    /// The same graph, in which the backward pass (nodes from `forward` on) computes outputs again, right before their first use, where
    /// [`Op::rematerialize`](super::Op::rematerialize) can do so from tensors that the backward pass reads anyway. The originals are free
    /// after the forward pass. Handles of nodes from `forward` on become invalid; named outputs stay valid.
    #[must_use]
    pub fn rematerialize(&self, forward: usize) -> Self {
        let made = self.rematerializable(forward);
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len() + made.len());
        let mut moved: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut again: HashMap<Tensor, Tensor> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            if index >= forward {
                for tensor in &node.inputs {
                    let (Some(node), false) = (made.get(tensor), again.contains_key(tensor)) else { continue };
                    again.insert(*tensor, Tensor { node: nodes.len() as u32, output: 0 });
                    let inputs = node.inputs.iter().map(|t| Tensor { node: moved[t.node as usize], ..*t }).collect();
                    nodes.push(Node { inputs, ..node.clone() });
                }
            }
            let input = |t: &Tensor| match again.get(t) {
                Some(made) if index >= forward => *made,
                _ => Tensor { node: moved[t.node as usize], ..*t },
            };
            let inputs = node.inputs.iter().map(input).collect();
            moved.push(nodes.len() as u32);
            nodes.push(Node { inputs, ..node.clone() });
        }
        self.with_nodes(nodes, &moved)
    }

    /// The graph with other nodes: its own stand at the places `moved` among them.
    pub(super) fn with_nodes(&self, nodes: Vec<Node>, moved: &[u32]) -> Self {
        let mut new = Self { nodes, ..self.clone() };
        for tensor in new.named.values_mut().chain(new.outputs.iter_mut().map(|(_, tensor)| tensor)) {
            tensor.node = moved[tensor.node as usize];
        }
        new
    }

    /// The outputs of the first `forward` nodes to compute again, and the nodes that do it.
    fn rematerializable(&self, forward: usize) -> HashMap<Tensor, Node> {
        let read: HashSet<Tensor> =
            self.nodes.iter().skip(forward).flat_map(|node| node.inputs.iter().copied()).collect();
        let kept = |tensor: &Tensor| self.outputs.iter().any(|(_, output)| output == tensor);
        let mut wanted: Vec<Tensor> =
            read.iter().copied().filter(|t| (t.node as usize) < forward && !kept(t)).collect();
        wanted.sort_by_key(|t| (t.node, t.output));
        let mut made: HashMap<Tensor, Node> = HashMap::new();
        for tensor in wanted {
            let node = &self.nodes[tensor.node as usize];
            let Kind::Op(op) = &node.kind else { continue };
            let Some(rematerialize) = op.rematerialize(tensor.output as usize) else { continue };
            let from = rematerialize.from.iter().map(|source| match source {
                RematerializeInput::Input(index) => node.inputs.get(*index).copied(),
                RematerializeInput::Output(index) => {
                    (*index < node.outputs.len()).then_some(Tensor { output: *index as u32, ..tensor })
                }
            });
            let Some(inputs) = from.collect::<Option<Vec<Tensor>>>() else { continue };
            // There is no gain if an input has to be kept only for this; weights are kept in any case.
            let there = |t: &Tensor| matches!(self.nodes[t.node as usize].kind, Kind::Parameter(_)) || read.contains(t);
            let types: Vec<TensorType> = inputs.iter().map(|t| self.ty(*t).clone()).collect();
            if let Ok(outputs) = rematerialize.op.infer(&types)
                && outputs.first() == Some(self.ty(tensor))
                && let Ok(aliases) = aliases(rematerialize.op.as_ref(), &types, &outputs)
                && inputs.iter().all(|source| there(source) && !made.contains_key(source))
            {
                let label = format!("again.{}", node.label);
                made.insert(
                    tensor,
                    Node { kind: Kind::Op(rematerialize.op), inputs, outputs, label, own: node.own, aliases },
                );
            }
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::checkpoint::tests::{peak, results};
    use crate::nn::{FeedForward, FeedForwardUse, GATED, LinearConfig};
    use crate::ops::{self, Activation};

    const WIDTH: usize = 8;

    /// Two feed-forward layers with residuals and the gradients of their loss.
    fn model(gated: bool) -> (Graph, usize) {
        let mut g = Graph::new();
        let mut x = g.input("x", [64, WIDTH], DType::F32).unwrap();
        let (d_ff, linear) = (32, LinearConfig::in_out(true));
        let output_linear = linear;
        let feed_forward = match gated {
            true => FeedForward::Gated {
                module: "mlp",
                names: GATED,
                d_ff,
                activation: Activation::Silu,
                linear,
                output_linear,
            },
            false => FeedForward::Plain {
                names: ["up", "down"],
                d_ff,
                activation: Activation::GeluTanh,
                linear,
                output_linear,
            },
        };
        for layer in 0..2 {
            let y = feed_forward.run(&mut g, &format!("l{layer}"), x, FeedForwardUse::default()).map(|(y, _)| y);
            x = ops::add(&mut g, x, y.unwrap()).unwrap();
        }
        let loss = ops::mean(&mut g, x).unwrap();
        let weights: Vec<Tensor> = g.parameters().map(|(_, tensor)| tensor).collect();
        let forward = g.nodes().len();
        for (index, gradient) in g.differentiate(loss, &weights).unwrap().into_iter().enumerate() {
            g.output(&format!("grad{index}"), gradient.unwrap()).unwrap();
        }
        g.output("loss", loss).unwrap();
        (g, forward)
    }

    #[test]
    fn results_stay_and_memory_shrinks() {
        for gated in [false, true] {
            let (plain, forward) = model(gated);
            let again = plain.rematerialize(forward);
            assert_eq!(again.nodes().len(), plain.nodes().len() + 2, "{again}");
            assert_eq!(results(&plain), results(&again));
            assert!(peak(&again) < peak(&plain), "{} against {}", peak(&again), peak(&plain));
        }
    }

    #[test]
    fn norms_are_computed_again_from_their_inputs() {
        let mut g = Graph::new();
        let mut x = g.input("x", [64, WIDTH], DType::F32).unwrap();
        let mut branch = ops::scale(&mut g, x, 0.5).unwrap();
        for layer in 0..3 {
            let gain = g.parameter(&format!("{layer}.gain"), [WIDTH], DType::F32).unwrap();
            let w = g.parameter(&format!("{layer}.w"), [WIDTH, WIDTH], DType::F32).unwrap();
            let (sum, normed) = match layer {
                0 => {
                    let bias = g.parameter("bias", [WIDTH], DType::F32).unwrap();
                    ops::add_layer_norm(&mut g, x, branch, gain, Some(bias), 1e-5).unwrap()
                }
                1 => ops::add_rms_norm(&mut g, x, branch, gain, 1e-5).unwrap(),
                _ => {
                    let sum = ops::add(&mut g, x, branch).unwrap();
                    (sum, ops::layer_norm(&mut g, sum, gain, None, 1e-5).unwrap())
                }
            };
            branch = ops::matmul(&mut g, normed, w).unwrap();
            x = sum;
        }
        let all = ops::add(&mut g, x, branch).unwrap();
        let squares = ops::mul(&mut g, all, all).unwrap();
        let loss = ops::mean(&mut g, squares).unwrap();
        let weights: Vec<Tensor> = g.parameters().map(|(_, tensor)| tensor).collect();
        let forward = g.nodes().len();
        for (index, gradient) in g.differentiate(loss, &weights).unwrap().into_iter().enumerate() {
            g.output(&format!("grad{index}"), gradient.unwrap()).unwrap();
        }
        let again = g.rematerialize(forward);
        assert_eq!(again.nodes().len(), g.nodes().len() + 3, "{again}");
        assert_eq!(results(&g), results(&again));
        assert!(peak(&again) < peak(&g), "{} against {}", peak(&again), peak(&g));
    }

    #[test]
    fn what_nothing_reads_backward_is_left_alone() {
        let (plain, _) = model(false);
        assert_eq!(plain.rematerialize(plain.nodes().len()).to_string(), plain.to_string());
    }
}
