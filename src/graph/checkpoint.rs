//! Activation checkpointing trades time for memory: activations of a block are computed again right before its backward pass, instead of
//! being kept (Chen et al. 2016, arXiv:1604.06174).
//!
//! The clones are the same ops on the same inputs, so they launch the same kernels and give the same bits. Dropout reads its seed from an
//! input and drops the same elements again.

use super::{Alias, Graph, Kind, Node, Tensor};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// The nodes of a segment that are computed again, and the node before which that happens.
struct Recomputation {
    nodes: BTreeSet<usize>,
    kept: HashSet<Tensor>,
    before: usize,
}

impl Graph {
    /// The ranges of nodes among the first `forward` in scopes `PREFIX.0`, `PREFIX.1`, …: the blocks of a model, for
    /// [`Graph::checkpoint_blocks`].
    #[must_use]
    pub fn blocks(&self, forward: usize, prefix: &str) -> Vec<Range<usize>> {
        let mut blocks: Vec<(usize, Range<usize>)> = Vec::new();
        for (index, node) in self.nodes.iter().enumerate().take(forward) {
            if !matches!(node.kind, Kind::Op(_)) {
                continue;
            }
            let rest = node.label.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
            let Some(number) = rest.and_then(|rest| rest.split('.').next()?.parse().ok()) else { continue };
            match blocks.last_mut() {
                Some((last, range)) if *last == number => range.end = index + 1,
                _ => blocks.push((number, index..index + 1)),
            }
        }
        blocks.into_iter().map(|(_, range)| range).collect()
    }

    /// The same graph, in which the backward pass (nodes from `forward` on) reads tensors of the given segments of forward nodes from copies
    /// that are computed right before their first use. Tensors that other segments read are kept. Handles of nodes from `forward` on become
    /// invalid; named outputs stay valid.
    ///
    /// # Errors
    /// [`Error::Graph`] if segments overlap or reach beyond `forward`.
    pub fn checkpoint_blocks(&self, forward: usize, segments: &[Range<usize>]) -> Result<Self> {
        let forward = forward.min(self.nodes.len());
        let updates = self.last_updates(forward);
        let mut end = 0;
        let mut plans: BTreeMap<usize, Vec<Recomputation>> = BTreeMap::new();
        for segment in segments {
            if segment.start < end || segment.end < segment.start || segment.end > forward {
                return Err(Error::Graph(format!("the segment {segment:?} overlaps another or the backward pass")));
            }
            end = segment.end;
            if let Some(again) = self.again(forward, segment, &updates) {
                plans.entry(again.before).or_default().push(again);
            }
        }
        Ok(self.with_clones(&plans))
    }

    /// The recomputation of a segment: what the backward pass reads of it and is not kept anyway.
    fn again(&self, forward: usize, segment: &Range<usize>, updates: &HashMap<Tensor, usize>) -> Option<Recomputation> {
        let kept = self.kept(forward, segment, updates);
        let inside = |t: &Tensor| segment.contains(&(t.node as usize)) && !kept.contains(t);
        let mut before = None;
        let mut nodes = BTreeSet::new();
        for (index, node) in self.nodes.iter().enumerate().skip(forward) {
            for tensor in node.inputs.iter().filter(|t| inside(t)) {
                before.get_or_insert(index);
                nodes.insert(tensor.node as usize);
            }
        }
        for index in segment.clone().rev() {
            if nodes.contains(&index) {
                nodes.extend(self.nodes[index].inputs.iter().filter(|t| inside(t)).map(|t| t.node as usize));
            }
        }
        before.map(|before| Recomputation { nodes, kept, before })
    }

    /// The tensors of a segment that stay in memory: leaves, outputs, tensors that other forward nodes read, tensors that are updated in place
    /// or computed from such (they can't be computed twice), and the tensors of which these are views.
    fn kept(&self, forward: usize, segment: &Range<usize>, updates: &HashMap<Tensor, usize>) -> HashSet<Tensor> {
        let mut kept: HashSet<Tensor> = self.outputs.iter().map(|(_, tensor)| *tensor).collect();
        for (index, node) in self.nodes.iter().enumerate().take(forward) {
            if !segment.contains(&index) {
                kept.extend(&node.inputs);
            }
        }
        for index in segment.clone().rev() {
            let node = &self.nodes[index];
            // Its inputs are overwritten by the end of the forward pass.
            let once = node.inputs.iter().any(|t| updates.get(&self.root(*t)).is_some_and(|last| *last >= index));
            for output in 0..node.outputs.len() {
                let tensor = Tensor { node: index as u32, output: output as u32 };
                if once {
                    kept.insert(tensor);
                }
                match &node.kind {
                    Kind::Op(_) => match node.aliases[output] {
                        Some(Alias::InPlace(input)) => kept.extend([tensor, node.inputs[input]]),
                        Some(Alias::View(input)) if kept.contains(&tensor) => kept.extend([node.inputs[input]]),
                        _ => {}
                    },
                    _ => kept.extend([tensor]),
                }
            }
        }
        kept.retain(|tensor| segment.contains(&(tensor.node as usize)));
        kept
    }

    fn with_clones(&self, plans: &BTreeMap<usize, Vec<Recomputation>>) -> Self {
        let kept: HashSet<Tensor> = plans.values().flatten().flat_map(|again| again.kept.iter().copied()).collect();
        let mut nodes: Vec<Node> = Vec::with_capacity(self.nodes.len() * 2);
        let mut moved: Vec<u32> = Vec::with_capacity(self.nodes.len());
        let mut clones: HashMap<u32, u32> = HashMap::new();
        // Clones are added only in the backward pass, so forward nodes keep reading the originals.
        let redirected = |inputs: &[Tensor], moved: &[u32], clones: &HashMap<u32, u32>| -> Vec<Tensor> {
            let node = |t: &Tensor| match clones.get(&t.node) {
                Some(clone) if !kept.contains(t) => *clone,
                _ => moved[t.node as usize],
            };
            inputs.iter().map(|t| Tensor { node: node(t), ..*t }).collect()
        };
        for (index, node) in self.nodes.iter().enumerate() {
            for &old in plans.get(&index).into_iter().flatten().flat_map(|again| &again.nodes) {
                let source = &self.nodes[old];
                let inputs = redirected(&source.inputs, &moved, &clones);
                clones.insert(old as u32, nodes.len() as u32);
                nodes.push(Node { inputs, label: format!("again.{}", source.label), ..source.clone() });
            }
            let inputs = redirected(&node.inputs, &moved, &clones);
            moved.push(nodes.len() as u32);
            nodes.push(Node { inputs, ..node.clone() });
        }
        self.with_nodes(nodes, &moved)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::graph::{Array, Values};
    use crate::kernel::Caps;
    use crate::ops::{self, Activation};
    use crate::program::{Plan, Recording};

    const ROWS: usize = 64;

    /// Blocks of `x + tanh(tanh(x · w_i))`, their loss, and the gradients with respect to all w as outputs.
    fn model(blocks: usize) -> (Graph, usize) {
        let mut g = Graph::new();
        let mut x = g.input("x", [ROWS, 8], DType::F32).unwrap();
        let mut weights = Vec::new();
        for block in 0..blocks {
            let w = g.parameter(&format!("w{block}"), [ROWS, 8], DType::F32).unwrap();
            weights.push(w);
            x = g
                .scope(format!("blocks.{block}"), |g| {
                    let mut y = ops::mul(g, x, w)?;
                    for _ in 0..3 {
                        y = ops::activation(g, y, Activation::Tanh)?;
                        y = ops::mul(g, y, y)?;
                    }
                    ops::add(g, x, y)
                })
                .unwrap();
        }
        let loss = ops::mean(&mut g, x).unwrap();
        let forward = g.nodes().len();
        for (block, gradient) in g.differentiate(loss, &weights).unwrap().into_iter().enumerate() {
            g.output(&format!("grad{block}"), gradient.unwrap()).unwrap();
        }
        g.output("loss", loss).unwrap();
        (g, forward)
    }

    /// All outputs, from inputs and parameters that depend on their names.
    pub(in crate::graph) fn results(g: &Graph) -> Vec<Array> {
        let mut values = Values::new();
        for (name, tensor) in g.inputs().chain(g.parameters()) {
            let salt = name.len() as f64 + name.bytes().map(f64::from).sum::<f64>();
            values.insert(name.into(), Array::from_fn(g.shape(tensor).clone(), |i| (i as f64 * 0.37 + salt).sin()));
        }
        let wanted: Vec<Tensor> = g.outputs().iter().map(|(_, t)| *t).collect();
        g.evaluate(&values, &wanted).unwrap()
    }

    /// The peak of live bytes.
    pub(in crate::graph) fn peak(g: &Graph) -> u64 {
        let recording = Recording::new(g, &Caps::baseline()).unwrap();
        Plan::new(&recording, &Caps::baseline()).unwrap().lower_bound
    }

    #[test]
    fn results_stay_and_memory_shrinks() {
        let (plain, forward) = model(6);
        let blocks = plain.blocks(forward, "blocks");
        assert_eq!(blocks.len(), 6);
        let again = plain.checkpoint_blocks(forward, &blocks).unwrap();
        assert!(again.nodes().len() > plain.nodes().len());
        assert_eq!(results(&plain), results(&again));
        assert!(peak(&again) * 3 < peak(&plain) * 2, "{} against {}", peak(&again), peak(&plain));
    }

    #[test]
    fn without_segments_nothing_changes() {
        let (plain, forward) = model(2);
        assert_eq!(plain.checkpoint_blocks(forward, &[]).unwrap().to_string(), plain.to_string());
    }

    #[test]
    fn segments_that_overlap_are_refused() {
        let (plain, forward) = model(2);
        let error = plain.checkpoint_blocks(forward, &[1..5, 4..6]).unwrap_err().to_string();
        assert!(error.contains("4..6 overlaps"), "{error}");
        assert!(plain.checkpoint_blocks(forward, std::slice::from_ref(&(0..forward + 1))).is_err());
    }

    /// A block that reads a parameter which is updated in place after it, and its loss.
    fn with_bias() -> (Graph, usize) {
        let mut g = Graph::new();
        let x = g.parameter("x", [1, 8], DType::F32).unwrap();
        let bias = g.parameter("bias", [8], DType::F32).unwrap();
        let loss = g
            .scope("blocks.0", |g| {
                let view = ops::reshape(g, bias, [1, 8])?;
                let sum = ops::add(g, x, view)?;
                let y = ops::activation(g, sum, Activation::Tanh)?;
                let y = ops::mul(g, y, y)?;
                ops::mean(g, y)
            })
            .unwrap();
        let counts = g.constant("counts", Array::from_fn([8], |i| i as f64), DType::F32);
        ops::update_bias(&mut g, bias, counts, 0.5).unwrap();
        let forward = g.nodes().len();
        let gradient = g.differentiate(loss, &[x]).unwrap()[0].unwrap();
        g.output("grad", gradient).unwrap();
        (g, forward)
    }

    #[test]
    fn what_reads_memory_that_changes_is_kept() {
        let (plain, forward) = with_bias();
        let again = plain.checkpoint_blocks(forward, &plain.blocks(forward, "blocks")).unwrap();
        assert!(again.nodes().len() > plain.nodes().len());
        Recording::new(&again, &Caps::baseline()).unwrap();
        assert_eq!(results(&plain), results(&again));
    }

    #[test]
    fn segments_beyond_the_graph_are_refused() {
        let mut g = Graph::new();
        let x = g.input("x", [3], DType::F32).unwrap();
        ops::activation(&mut g, x, Activation::Tanh).unwrap();
        let error = g.checkpoint_blocks(10, std::slice::from_ref(&(0..9))).unwrap_err().to_string();
        assert!(error.contains("the segment 0..9 overlaps another or the backward pass"), "{error}");
    }
}
