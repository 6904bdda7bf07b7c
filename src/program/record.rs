//! Recording: a graph becomes a list of dispatches over slots of memory. Plain data; no GPU.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Kind, Node, Op, Tensor};
use crate::kernel::{Caps, Choices, Dispatch, Launch, Question, View};
use crate::shape::TensorType;
use crate::software::adapt;
use std::collections::{HashMap, HashSet};
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
    /// What whole numbers that the caller writes there must be below, if anything ([`Op::bounds`]).
    pub below: Option<usize>,
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
    /// Records what the graph's outputs, and its updates of states and parameters, need, after [`Graph::fused`].
    ///
    /// # Errors
    /// Those of the ops: a shape out of range, a kernel without a variant for the adapter; [`Error::Graph`] if a value
    /// is read after it was overwritten in place.
    pub fn new(graph: &Graph, caps: &Caps) -> Result<Self> {
        Self::with_choices(graph, caps, &Choices::default())
    }

    /// The same with variants of kernels that were chosen for this adapter instead of its defaults.
    ///
    /// # Errors
    /// As [`Recording::new`].
    pub fn with_choices(graph: &Graph, caps: &Caps, choices: &Choices) -> Result<Self> {
        Ok(Self::and_questions(&graph.fused(), caps, choices)?.0)
    }

    /// Records a graph as it is, and gives the problems that have several variants, with their nodes.
    pub(super) fn and_questions(
        graph: &Graph,
        caps: &Caps,
        choices: &Choices,
    ) -> Result<(Self, Vec<(usize, Question)>)> {
        let mut recorder = Recorder {
            graph,
            caps,
            choices,
            questions: Vec::new(),
            live: graph.live(),
            read: HashSet::new(),
            views: vec![Vec::new(); graph.nodes().len()],
            versions: HashMap::new(),
            placed: HashMap::new(),
            updated: graph.updated_roots(),
            slots: Vec::new(),
            dispatches: Vec::new(),
        };
        recorder.read = read_tensors(graph, &recorder.live);
        recorder.leaves();
        recorder.place();
        for (index, node) in graph.nodes().iter().enumerate() {
            if let (true, Kind::Op(op)) = (recorder.live[index], &node.kind) {
                recorder.op(index, node, op.as_ref())?;
            }
        }
        let outputs = graph.outputs().iter().map(|(name, t)| (name.clone(), recorder.view(*t))).collect();
        let recording = Self { slots: recorder.slots, dispatches: recorder.dispatches, outputs };
        Ok((recording, recorder.questions))
    }

    /// Floating-point operations of all dispatches.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.dispatches.iter().map(|d| d.flops).sum()
    }

    /// Bytes that all dispatches bind: the least that moves.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(Dispatch::bytes).sum()
    }
}

struct Recorder<'a> {
    graph: &'a Graph,
    caps: &'a Caps,
    choices: &'a Choices,
    questions: Vec<(usize, Question)>,
    live: Vec<bool>,
    /// Tensors that a live node or the caller reads.
    read: HashSet<Tensor>,
    views: Vec<Vec<View>>,
    /// How often a slot was updated in place, and the count that each tensor stands for.
    versions: HashMap<usize, u32>,
    /// Tensors that are computed right where a pack wants them.
    placed: HashMap<Tensor, View>,
    /// Tensors that ops change in place.
    updated: HashSet<Tensor>,
    slots: Vec<Slot>,
    dispatches: Vec<Dispatch>,
}

impl Recorder<'_> {
    fn fresh(&mut self, source: Source, ty: &TensorType, label: String) -> View {
        self.slots.push(Slot { label, source, ty: ty.clone(), below: None });
        View { slot: self.slots.len() - 1, start: 0, shape: ty.shape.clone(), dtype: ty.dtype }
    }

    fn view(&self, tensor: Tensor) -> View {
        self.views[tensor.node as usize][tensor.output as usize].clone()
    }

    /// Slots for everything that is there before the first dispatch.
    fn leaves(&mut self) {
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let source = match &node.kind {
                Kind::Input(name) => Source::Input(name.clone()),
                Kind::Parameter(name) => Source::Parameter(name.clone()),
                Kind::State(name) => Source::State(name.clone()),
                Kind::Constant(value) => Source::Constant(value.clone(), node.outputs[0].dtype),
                Kind::Op(_) => continue,
            };
            if self.live[index] {
                let view = self.fresh(source, &node.outputs[0], node.label.clone());
                self.views[index] = vec![view];
            }
        }
    }

    /// Finds the tensors that can be computed right where an op wants them (see [`Op::placements`]).
    fn place(&mut self) {
        let nodes = self.graph.nodes();
        for (index, node) in nodes.iter().enumerate() {
            let Kind::Op(op) = &node.kind else { continue };
            if !self.live[index] {
                continue;
            }
            for placement in op.placements() {
                let (part, whole) = (node.inputs[placement.input], node.inputs[placement.into]);
                let Some(root) = self.views[whole.node as usize].first().cloned() else { continue };
                if self.can_be_placed(part) && !self.placed.contains_key(&part) {
                    let ty = self.graph.ty(part);
                    let start = root.start + placement.offset;
                    self.placed.insert(part, View { start, shape: ty.shape.clone(), dtype: ty.dtype, ..root });
                }
            }
        }
    }

    /// A tensor can be placed if its op writes it afresh, in memory of its own, and does not read what is placed too.
    fn can_be_placed(&self, tensor: Tensor) -> bool {
        let node = &self.graph.nodes()[tensor.node as usize];
        match &node.kind {
            Kind::Op(op) => {
                op.alias(tensor.output as usize).is_none()
                    && op.placeable(tensor.output as usize)
                    && !node.inputs.iter().any(|input| self.placed.contains_key(input))
                    && !self.read_with_placed_output(tensor)
            }
            _ => false,
        }
    }

    /// Whether an op that reads the tensor writes a placed one.
    fn read_with_placed_output(&self, tensor: Tensor) -> bool {
        self.placed.keys().any(|placed| self.graph.nodes()[placed.node as usize].inputs.contains(&tensor))
    }

    fn op(&mut self, index: usize, node: &Node, op: &dyn Op) -> Result<()> {
        let inputs: Vec<View> = node.inputs.iter().map(|&t| self.view(t)).collect();
        self.check_versions(node, op, &inputs)?;
        let types: Vec<TensorType> = node.inputs.iter().map(|&t| self.graph.ty(t).clone()).collect();
        for (input, below) in op.bounds(&types) {
            let slot = &mut self.slots[inputs[input].slot];
            slot.below = Some(slot.below.map_or(below, |least| least.min(below)));
        }
        let mut outputs = Vec::with_capacity(node.outputs.len());
        for (output, ty) in node.outputs.iter().enumerate() {
            let tensor = Tensor { node: index as u32, output: output as u32 };
            outputs.push(match op.alias(output) {
                Some(Alias::View(input) | Alias::InPlace(input)) => {
                    View { shape: ty.shape.clone(), dtype: ty.dtype, ..inputs[input].clone() }
                }
                None => match self.placed.get(&tensor) {
                    Some(view) => view.clone(),
                    None => match self.part(tensor, node, op, &types, &inputs) {
                        Some((slot, start)) => View { slot, start, shape: ty.shape.clone(), dtype: ty.dtype },
                        None => self.fresh(Source::Temporary, ty, node.label.clone()),
                    },
                },
            });
        }
        let read = |output| self.read.contains(&Tensor { node: index as u32, output });
        let used = (0..outputs.len() as u32).map(read).collect();
        let mut launch = Launch::new(self.caps, &inputs, &outputs, self.slots.len());
        launch = launch.with_used(used).with_choices(self.choices);
        op.launch(&mut launch)?;
        self.questions.extend(launch.take_questions().into_iter().map(|question| (index, question)));
        let (launched, scratch) = launch.finish();
        for view in scratch {
            let ty = TensorType::new(view.shape, view.dtype);
            let label = format!("{}.scratch", node.label);
            self.slots.push(Slot { label, source: Source::Temporary, ty, below: None });
        }
        let launched = launched.into_iter().map(|d| adapt(self.caps, d));
        self.dispatches.extend(launched.map(|d| Dispatch { label: node.label.clone(), ..d }));
        self.views[index] = outputs;
        Ok(())
    }

    /// The slot and first element of an output that can stay a part of an input.
    fn part(
        &self,
        output: Tensor,
        node: &Node,
        op: &dyn Op,
        types: &[TensorType],
        inputs: &[View],
    ) -> Option<(usize, usize)> {
        let (input, first) = op.part_of(output.output as usize, types)?;
        let (root, view) = (self.graph.root(node.inputs[input]), &inputs[input]);
        let start = view.start + first;
        let computed = matches!(self.graph.nodes()[root.node as usize].kind, Kind::Op(_));
        let keeps = !self.placed.contains_key(&root) && ![root, output].iter().any(|t| self.updated.contains(t));
        let aligned = view.dtype.bytes(start) % self.caps.offset_alignment == 0;
        (computed && keeps && aligned).then_some((view.slot, start))
    }

    /// Refuses a read of a value that an earlier node has overwritten in place, and counts this node's updates.
    fn check_versions(&mut self, node: &Node, op: &dyn Op, inputs: &[View]) -> Result<()> {
        for (tensor, view) in node.inputs.iter().zip(inputs) {
            let stands_for = self.version_of(*tensor);
            if self.versions.get(&view.slot).is_some_and(|now| *now != stands_for) {
                let what =
                    format!("{} reads {} after it was overwritten in place", node.label, self.slots[view.slot].label);
                return Err(Error::Graph(what));
            }
        }
        for output in 0..node.outputs.len() {
            let Some(Alias::InPlace(input)) = op.alias(output) else { continue };
            let slot = inputs[input].slot;
            if matches!(self.slots[slot].source, Source::Input(_) | Source::Constant(..)) {
                let what = format!("{} would overwrite {}, an input or constant", node.label, self.slots[slot].label);
                return Err(Error::Graph(what));
            }
            *self.versions.entry(slot).or_default() += 1;
        }
        Ok(())
    }

    /// How many updates of its memory a tensor has seen.
    fn version_of(&self, tensor: Tensor) -> u32 {
        let node = &self.graph.nodes()[tensor.node as usize];
        match &node.kind {
            Kind::Op(op) => match op.alias(tensor.output as usize) {
                Some(Alias::View(input)) => self.version_of(node.inputs[input]),
                Some(Alias::InPlace(input)) => self.version_of(node.inputs[input]) + 1,
                None => 0,
            },
            _ => 0,
        }
    }
}

/// What live nodes and the caller read.
fn read_tensors(graph: &Graph, live: &[bool]) -> HashSet<Tensor> {
    let nodes = graph.nodes().iter().zip(live).filter(|(_, live)| **live);
    let inputs = nodes.flat_map(|(node, _)| node.inputs.iter().copied());
    inputs.chain(graph.outputs().iter().map(|(_, tensor)| *tensor)).collect()
}
