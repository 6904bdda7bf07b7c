//! Records a graph as a list of dispatches over slots of memory: plain data, no GPU.

use super::reach::NodeMemory;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Constant, Graph, Kind, Node, Op, Tensor};
use crate::kernel::{Access, Caps, Dispatch, Launch, TunedVariants, TuningProblem, View};
use crate::shape::TensorType;
use crate::software::adapt;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Alignment of the offsets of [`Op::write_into`], in elements.
const WRITE_ALIGNMENT: usize = 64;

/// Where the memory of a slot comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// Written by the caller before each run.
    Input(String),
    /// A weight of the store.
    Parameter(String),
    /// A state of the store.
    State(String),
    /// Uploaded once, when the program is prepared.
    Constant(Arc<Constant>, DType),
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
    /// The type of its content.
    pub ty: TensorType,
    /// The exclusive upper bound of integers that the caller writes there, if there is one ([`Op::bounds`]).
    pub below: Option<usize>,
}

/// A whole step as data: dispatches over slots of memory.
#[derive(Clone, Debug)]
pub struct Recording {
    pub(crate) slots: Vec<Slot>,
    pub(crate) dispatches: Vec<Dispatch>,
    pub(crate) outputs: Vec<(String, View)>,
    /// The subgroup sizes that kernels may rely on.
    pub(super) subgroup_sizes: Option<[u32; 2]>,
}

impl Recording {
    /// A recording from its parts. All kernels are compiled with wgpu's checks, except those of
    /// [`Kernel::trusted`](crate::kernel::Kernel::trusted).
    #[must_use]
    pub fn from_parts(slots: Vec<Slot>, dispatches: Vec<Dispatch>, outputs: Vec<(String, View)>) -> Self {
        let dispatches = dispatches.into_iter().map(|dispatch| Dispatch { own: false, ..dispatch }).collect();
        Self { slots, dispatches, outputs, subgroup_sizes: None }
    }

    /// The memory.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The launches in order.
    #[must_use]
    pub fn dispatches(&self) -> &[Dispatch] {
        &self.dispatches
    }

    /// The named results.
    #[must_use]
    pub fn outputs(&self) -> &[(String, View)] {
        &self.outputs
    }

    /// Records the nodes that the graph's outputs and its updates of states and parameters depend on, after [`Graph::fused`].
    ///
    /// # Errors
    /// The errors of the ops: a shape out of range, a kernel without a variant for the adapter; [`Error::Graph`] if a value is read after it
    /// was overwritten in place.
    pub fn new(graph: &Graph, caps: &Caps) -> Result<Self> {
        Self::with_variants(graph, caps, &TunedVariants::default())
    }

    /// As [`Recording::new`], with tuned variants of kernels instead of the adapter's defaults.
    ///
    /// # Errors
    /// As [`Recording::new`].
    pub fn with_variants(graph: &Graph, caps: &Caps, tuned: &TunedVariants) -> Result<Self> {
        Ok(Self::with_problems(&graph.fused(), caps, tuned)?.0)
    }

    /// Records a graph without fusing it; also returns the problems with several variants, with their nodes.
    pub(crate) fn with_problems(
        graph: &Graph,
        caps: &Caps,
        tuned: &TunedVariants,
    ) -> Result<(Self, Vec<(usize, TuningProblem)>)> {
        let mut recorder = Recorder {
            graph,
            caps,
            tuned,
            problems: Vec::new(),
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
        recorder.place()?;
        for (index, node) in graph.nodes().iter().enumerate() {
            if let (true, Kind::Op(op)) = (recorder.live[index], &node.kind) {
                recorder.op(index, node, op.as_ref())?;
            }
        }
        let outputs = graph.outputs().iter().map(|(name, t)| (name.clone(), recorder.view(*t))).collect();
        let (slots, dispatches) = (recorder.slots, recorder.dispatches);
        let recording = Self { slots, dispatches, outputs, subgroup_sizes: caps.subgroup_sizes };
        Ok((recording, recorder.problems))
    }

    /// The recording as this device runs it: the crate's kernels are trusted only if subgroups have the sizes they were recorded for, and
    /// kernels that are not trusted are not adapted and read buffers that end where their tensors end.
    pub(super) fn trusted_on(mut self, caps: &Caps) -> Self {
        let other_size = self.subgroup_sizes.is_some_and(|sizes| caps.subgroup_sizes != Some(sizes));
        for dispatch in &mut self.dispatches {
            dispatch.own &= !other_size;
            if dispatch.is_trusted() {
                continue;
            }
            dispatch.params_first = false;
            for binding in &mut dispatch.bindings {
                if binding.access.only_reads() {
                    binding.access = Access::Read;
                }
            }
        }
        self
    }

    /// Floating-point operations of all dispatches.
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.dispatches.iter().map(|d| d.flops).sum()
    }

    /// Bytes that all dispatches bind: a lower bound of the traffic.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.dispatches.iter().map(Dispatch::bytes).sum()
    }
}

struct Recorder<'a> {
    graph: &'a Graph,
    caps: &'a Caps,
    tuned: &'a TunedVariants,
    problems: Vec<(usize, TuningProblem)>,
    live: Vec<bool>,
    /// Tensors that a live node or the caller reads.
    read: HashSet<Tensor>,
    views: Vec<Vec<View>>,
    /// How many times each slot was updated in place so far.
    versions: HashMap<usize, u32>,
    /// Tensors that their producers write into another tensor ([`Op::write_into`]).
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

    /// Slots for everything that exists before the first dispatch.
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

    /// Finds the tensors that their producers can write into another tensor ([`Op::write_into`]).
    fn place(&mut self) -> Result<()> {
        let nodes = self.graph.nodes();
        for (index, node) in nodes.iter().enumerate() {
            let Kind::Op(op) = &node.kind else { continue };
            if !self.live[index] {
                continue;
            }
            for request in op.write_into() {
                let input = |index: usize| {
                    node.inputs.get(index).copied().ok_or_else(|| no_input(node, "wants to write", index))
                };
                let (part, whole) = (input(request.input)?, input(request.into)?);
                let Some(root) = self.views[whole.node as usize].first().cloned() else { continue };
                if self.can_be_placed(part) && !self.placed.contains_key(&part) {
                    let ty = self.graph.ty(part);
                    let fits = request.offset.saturating_add(ty.shape.numel()) <= root.numel();
                    let memory = matches!(self.slots[root.slot].source, Source::State(_) | Source::Parameter(_));
                    let aligned = request.offset.is_multiple_of(WRITE_ALIGNMENT);
                    if !fits || !memory || !aligned || ty.dtype.is_quantised() || ty.dtype != root.dtype {
                        let what = format!(
                            "{} wants {ty} written at element {} of {}",
                            node.label, request.offset, root.shape
                        );
                        return Err(Error::Graph(format!(
                            "{what}: it must fit a state, at a multiple of {WRITE_ALIGNMENT} elements"
                        )));
                    }
                    let start = root.start + request.offset;
                    self.placed.insert(part, View { start, shape: ty.shape.clone(), dtype: ty.dtype, ..root });
                }
            }
        }
        Ok(())
    }

    /// Whether a tensor can be written into another one: its op writes it in full, in memory of its own, and reads no tensor that is.
    fn can_be_placed(&self, tensor: Tensor) -> bool {
        let node = &self.graph.nodes()[tensor.node as usize];
        match &node.kind {
            Kind::Op(op) => {
                node.aliases[tensor.output as usize].is_none()
                    && op.may_write_into(tensor.output as usize)
                    && !node.inputs.iter().any(|input| self.placed.contains_key(input))
                    && !self.read_with_placed_output(tensor)
            }
            _ => false,
        }
    }

    /// Whether an op that reads the tensor also writes a placed one.
    fn read_with_placed_output(&self, tensor: Tensor) -> bool {
        self.placed.keys().any(|placed| self.graph.nodes()[placed.node as usize].inputs.contains(&tensor))
    }

    fn op(&mut self, index: usize, node: &Node, op: &dyn Op) -> Result<()> {
        let inputs: Vec<View> = node.inputs.iter().map(|&t| self.view(t)).collect();
        self.check_versions(node, &inputs)?;
        let types: Vec<TensorType> = node.inputs.iter().map(|&t| self.graph.ty(t).clone()).collect();
        for (input, below) in op.bounds(&types) {
            let view = inputs.get(input).ok_or_else(|| no_input(node, "bounds", input))?;
            let slot = &mut self.slots[view.slot];
            slot.below = Some(slot.below.map_or(below, |least| least.min(below)));
        }
        let mut outputs = Vec::with_capacity(node.outputs.len());
        let mut slices = vec![false; node.outputs.len()];
        for (output, ty) in node.outputs.iter().enumerate() {
            let tensor = Tensor { node: index as u32, output: output as u32 };
            outputs.push(match node.aliases[output] {
                Some(Alias::View(input) | Alias::InPlace(input)) => {
                    View { shape: ty.shape.clone(), dtype: ty.dtype, ..inputs[input].clone() }
                }
                None => match self.placed.get(&tensor) {
                    Some(view) => view.clone(),
                    None => match self.slice(tensor, node, op, &types, &inputs)? {
                        Some((slot, start)) => {
                            slices[output] = true;
                            View { slot, start, shape: ty.shape.clone(), dtype: ty.dtype }
                        }
                        None => self.fresh(Source::Temporary, ty, node.label.clone()),
                    },
                },
            });
        }
        let read = |output| self.read.contains(&Tensor { node: index as u32, output });
        let used: Vec<bool> = (0..outputs.len() as u32).map(read).collect();
        let mut launch = Launch::new(self.caps, &inputs, &outputs, self.slots.len());
        launch = launch.with_used(used.clone()).with_variants(self.tuned);
        op.launch(&mut launch)?;
        self.problems.extend(launch.take_problems().into_iter().map(|problem| (index, problem)));
        let (launched, scratch) = launch.finish();
        let memory =
            NodeMemory { node, inputs: &inputs, outputs: &outputs, scratch: &scratch, used: &used, slices: &slices };
        memory.check(&launched)?;
        for view in scratch {
            let ty = TensorType::new(view.shape, view.dtype);
            let label = format!("{}.scratch", node.label);
            self.slots.push(Slot { label, source: Source::Temporary, ty, below: None });
        }
        let launched = launched.into_iter().map(|d| Dispatch { label: node.label.clone(), own: node.own, ..d });
        // Only trusted texts are adapted: they keep the conventions, and textures are larger than their tensors.
        self.dispatches.extend(launched.map(|d| match d.is_trusted() {
            true => adapt(self.caps, d),
            false => d,
        }));
        self.views[index] = outputs;
        Ok(())
    }

    /// The slot and first element of an output that can be a slice of an input.
    fn slice(
        &self,
        output: Tensor,
        node: &Node,
        op: &dyn Op,
        types: &[TensorType],
        inputs: &[View],
    ) -> Result<Option<(usize, usize)>> {
        let Some((input, first)) = op.slice_of(output.output as usize, types) else { return Ok(None) };
        let view = inputs.get(input).ok_or_else(|| no_input(node, "returns a slice of", input))?;
        let ty = &node.outputs[output.output as usize];
        if first.saturating_add(ty.shape.numel()) > view.numel() || ty.dtype.bytes(1) != view.dtype.bytes(1) {
            let what = format!("{} returns {ty} as a slice of {} from element {first} on", node.label, view.shape);
            return Err(Error::Graph(format!("{what}, which is too small or has another element size")));
        }
        let root = self.graph.root(node.inputs[input]);
        let start = view.start + first;
        let computed = matches!(self.graph.nodes()[root.node as usize].kind, Kind::Op(_));
        let unchanged = !self.placed.contains_key(&root) && ![root, output].iter().any(|t| self.updated.contains(t));
        let aligned = view.dtype.bytes(start) % self.caps.offset_alignment == 0;
        Ok((computed && unchanged && aligned).then_some((view.slot, start)))
    }

    /// Refuses to read a value that an earlier node overwrote in place, and counts this node's updates.
    fn check_versions(&mut self, node: &Node, inputs: &[View]) -> Result<()> {
        for (tensor, view) in node.inputs.iter().zip(inputs) {
            let version = self.version_of(*tensor);
            if self.versions.get(&view.slot).is_some_and(|now| *now != version) {
                let what =
                    format!("{} reads {} after it was overwritten in place", node.label, self.slots[view.slot].label);
                return Err(Error::Graph(what));
            }
        }
        for output in 0..node.outputs.len() {
            let Some(Alias::InPlace(input)) = node.aliases[output] else { continue };
            let slot = inputs[input].slot;
            if matches!(self.slots[slot].source, Source::Input(_) | Source::Constant(..)) {
                let what = format!("{} would overwrite {}, an input or constant", node.label, self.slots[slot].label);
                return Err(Error::Graph(what));
            }
            *self.versions.entry(slot).or_default() += 1;
        }
        Ok(())
    }

    /// How many updates of its memory a tensor includes.
    fn version_of(&self, tensor: Tensor) -> u32 {
        let node = &self.graph.nodes()[tensor.node as usize];
        match node.aliases[tensor.output as usize] {
            Some(Alias::View(input)) => self.version_of(node.inputs[input]),
            Some(Alias::InPlace(input)) => self.version_of(node.inputs[input]) + 1,
            None => 0,
        }
    }
}

/// The error of an op that names an input it does not have.
fn no_input(node: &Node, does: &str, index: usize) -> Error {
    Error::Graph(format!("{} {does} input {index}, but has only {} inputs", node.label, node.inputs.len()))
}

/// The tensors that live nodes and the caller read.
fn read_tensors(graph: &Graph, live: &[bool]) -> HashSet<Tensor> {
    let nodes = graph.nodes().iter().zip(live).filter(|(_, live)| **live);
    let inputs = nodes.flat_map(|(node, _)| node.inputs.iter().copied());
    inputs.chain(graph.outputs().iter().map(|(_, tensor)| *tensor)).collect()
}
