//! Recording: a graph becomes a list of dispatches over slots of memory. Plain data; no GPU.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Alias, Array, Graph, Kind, Tensor};
use crate::kernel::{Caps, Dispatch, Launch, View};
use crate::shape::TensorType;
use std::sync::Arc;

/// Where the memory of a slot comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Written by the caller before each run.
    Input(String),
    /// A weight of the store.
    Parameter(String),
    /// A state of the store.
    State(String),
    /// Uploaded once, when the program is prepared.
    Constant(Arc<Array>, DType),
    /// Planned memory.
    Temporary,
}

/// A piece of memory that dispatches read and write.
#[derive(Clone, Debug)]
pub struct Slot {
    /// A name for people.
    pub label: String,
    /// Where the memory comes from.
    pub source: Source,
    /// What lies there.
    pub ty: TensorType,
}

/// A whole step as data: dispatches over slots of memory.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The memory.
    pub slots: Vec<Slot>,
    /// The launches in order.
    pub dispatches: Vec<Dispatch>,
    /// The named results.
    pub outputs: Vec<(String, View)>,
}

impl Recording {
    /// Records what the graph's outputs, and its updates of states and parameters, need.
    ///
    /// # Errors
    /// Those of the ops: a shape out of range, a kernel without a variant for the adapter.
    pub fn new(graph: &Graph, caps: &Caps) -> Result<Self> {
        let live = live_nodes(graph);
        let mut slots: Vec<Slot> = Vec::new();
        let mut dispatches = Vec::new();
        let mut views: Vec<Vec<View>> = Vec::with_capacity(graph.nodes().len());
        for (index, node) in graph.nodes().iter().enumerate() {
            if !live[index] {
                views.push(Vec::new());
                continue;
            }
            let mut fresh = |source: Source, ty: &TensorType, label: String| {
                slots.push(Slot { label, source, ty: ty.clone() });
                View { slot: slots.len() - 1, start: 0, shape: ty.shape.clone(), dtype: ty.dtype }
            };
            let ty = &node.outputs[0];
            let label = node.label.clone();
            let outputs = match &node.kind {
                Kind::Input(name) => vec![fresh(Source::Input(name.clone()), ty, label)],
                Kind::Parameter(name) => vec![fresh(Source::Parameter(name.clone()), ty, label)],
                Kind::State(name) => vec![fresh(Source::State(name.clone()), ty, label)],
                Kind::Constant(value) => vec![fresh(Source::Constant(value.clone(), ty.dtype), ty, label)],
                Kind::Op(op) => {
                    let inputs: Vec<View> =
                        node.inputs.iter().map(|t| views[t.node as usize][t.output as usize].clone()).collect();
                    let outputs: Vec<View> = (node.outputs.iter().enumerate())
                        .map(|(output, ty)| match op.alias(output) {
                            Some(Alias::View(input) | Alias::InPlace(input)) => {
                                View { shape: ty.shape.clone(), dtype: ty.dtype, ..inputs[input].clone() }
                            }
                            None => fresh(Source::Temporary, ty, node.label.clone()),
                        })
                        .collect();
                    let mut launch = Launch::new(caps, &inputs, &outputs, slots.len());
                    op.launch(&mut launch)?;
                    let (launched, scratch) = launch.finish();
                    for view in scratch {
                        let ty = TensorType::new(view.shape, view.dtype);
                        slots.push(Slot { label: format!("{}.scratch", node.label), source: Source::Temporary, ty });
                    }
                    dispatches.extend(launched.into_iter().map(|d| Dispatch { label: node.label.clone(), ..d }));
                    outputs
                }
            };
            views.push(outputs);
        }
        let view_of = |t: &Tensor| views[t.node as usize][t.output as usize].clone();
        let outputs = graph.outputs().iter().map(|(name, t)| (name.clone(), view_of(t))).collect();
        Ok(Self { slots, dispatches, outputs })
    }
}

/// Nodes that an output, or an update of a state or parameter, depends on.
fn live_nodes(graph: &Graph) -> Vec<bool> {
    let nodes = graph.nodes();
    let mut live = vec![false; nodes.len()];
    for (_, tensor) in graph.outputs() {
        live[tensor.node as usize] = true;
    }
    for index in (0..nodes.len()).rev() {
        let node = &nodes[index];
        if let Kind::Op(op) = &node.kind {
            let updates = |output| match op.alias(output) {
                Some(Alias::InPlace(input)) => is_persistent(graph, node.inputs[input]),
                _ => false,
            };
            live[index] |= (0..node.outputs.len()).any(updates);
        }
        if live[index] {
            for input in &node.inputs {
                live[input.node as usize] = true;
            }
        }
    }
    live
}

/// Whether a tensor lies in the memory of a state or parameter.
fn is_persistent(graph: &Graph, tensor: Tensor) -> bool {
    let node = &graph.nodes()[tensor.node as usize];
    match &node.kind {
        Kind::Parameter(_) | Kind::State(_) => true,
        Kind::Op(op) => match op.alias(tensor.output as usize) {
            Some(Alias::View(input) | Alias::InPlace(input)) => is_persistent(graph, node.inputs[input]),
            None => false,
        },
        _ => false,
    }
}
