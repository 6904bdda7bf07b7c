//! Preparing a recording for a device: its memory at once, its pipelines one by one.

use super::inputs::InputBuffer;
use super::launches::{Launches, SlotMemory, pipeline};
use super::own::{OwnBuffers, OwnMemory};
use super::recut::Cutting;
use super::{Budget, Plan, Program, Recording, Source, Weights, pack, tune};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Held, TENSORS, Uploads};
use crate::graph::Graph;
use crate::kernel::Caps;
use crate::software::texture_bytes;
use parking_lot::ReentrantMutex;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use web_time::Instant;

/// Offsets of constants: what every adapter accepts as a binding offset.
const ALIGNMENT: u64 = 256;

/// A program on its way: it has its memory, and its kernels are compiled bit by bit ([`Program::preparing`]). Dropping it gives up.
#[derive(Debug)]
#[must_use = "the program comes by `Preparation::finish`"]
pub struct Preparation {
    gpu: Gpu,
    recording: Recording,
    plan: Plan,
    own: OwnMemory,
    memory: SlotMemory,
    arenas: Vec<wgpu::Buffer>,
    input_buffer: wgpu::Buffer,
    inputs: InputBuffer,
    budget: Option<Budget>,
    held: Vec<Arc<Held>>,
    /// Those of the first dispatches.
    pipelines: Vec<wgpu::ComputePipeline>,
}

/// How temporaries are planned; some need no place.
type Planner = fn(&Recording, &Caps, &HashSet<usize>) -> Result<Plan>;

impl Program {
    /// Records a graph ([`Program::record`]) and prepares it for the device; weights and states come from the store.
    ///
    /// # Errors
    /// Those of recording; [`Error::OutOfMemory`]; [`Error::Shader`] if a kernel does not compile.
    pub fn new(gpu: &Gpu, graph: &Graph, weights: &Weights) -> Result<Self> {
        Self::prepare(gpu, Self::record(gpu, graph)?, weights)
    }

    /// As [`Program::new`] for an application that draws frames or has buffers of its own: records the graph, plans and allocates its memory, and
    /// leaves the kernels, which take most of the time, to [`Preparation::advance`] or [`Preparation::finish_async`].
    ///
    /// # Errors
    /// As [`Program::new`]; [`Error::Input`] if one of the `own` buffers does not fit.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wgformer::{DType, Error, Gpu, Graph, Program, Weights, ops, program::OwnBuffers};
    /// # fn frames(gpu: &Gpu, graph: &Graph, weights: &Weights, draw: impl Fn(f64)) -> Result<Program, Error> {
    /// let mut preparation = Program::preparing(gpu, graph, weights, &OwnBuffers::new())?;
    /// while preparation.advance(Duration::from_millis(4))? {
    ///     draw(preparation.progress());
    /// }
    /// let program = preparation.finish()?;
    /// # Ok(program)
    /// # }
    /// ```
    pub fn preparing(gpu: &Gpu, graph: &Graph, weights: &Weights, own: &OwnBuffers) -> Result<Preparation> {
        Preparation::new(gpu, Self::record(gpu, graph)?, weights, None, own, Plan::without)
    }

    /// The recording that [`Program::new`] prepares: the graph in the device's tuned variants, after tuning if [`Gpu::tune`] enabled it.
    ///
    /// # Errors
    /// Those of recording; [`Error::DeviceLost`].
    pub fn record(gpu: &Gpu, graph: &Graph) -> Result<Recording> {
        tune(gpu, graph)?;
        Recording::with_variants(graph, gpu.caps(), &gpu.tuned_variants())
    }

    /// Prepares a recording for the device; the length of launches and submissions follows the device's measured speed.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare(gpu: &Gpu, recording: Recording, weights: &Weights) -> Result<Self> {
        Self::build(gpu, recording, weights, None, Plan::without)
    }

    /// As [`Program::prepare`], with temporaries that share no memory and stand apart: [`Program::written_outside`] says what a kernel wrote
    /// outside its tensors. It takes more memory.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare_apart(gpu: &Gpu, recording: Recording, weights: &Weights) -> Result<Self> {
        Self::build(gpu, recording, weights, None, |recording, caps, _| Plan::apart(recording, caps))
    }

    /// Prepares a recording with a fixed budget for the length of launches and submissions.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare_within(gpu: &Gpu, recording: Recording, weights: &Weights, budget: Budget) -> Result<Self> {
        Self::build(gpu, recording, weights, Some(budget), Plan::without)
    }

    fn build(
        gpu: &Gpu,
        recording: Recording,
        weights: &Weights,
        budget: Option<Budget>,
        planner: Planner,
    ) -> Result<Self> {
        Preparation::new(gpu, recording, weights, budget, &OwnBuffers::new(), planner)?.finish()
    }
}

impl Preparation {
    fn new(
        gpu: &Gpu,
        recording: Recording,
        weights: &Weights,
        budget: Option<Budget>,
        own: &OwnBuffers,
        planner: Planner,
    ) -> Result<Self> {
        let mut recording = recording.trusted_on(gpu.caps());
        let own = own.resolve(gpu, &recording)?;
        let mut foreign = own.placed();
        let (mut stored, mut held) = (HashMap::new(), Vec::new());
        for (index, slot) in recording.slots.iter().enumerate() {
            if let Source::Parameter(name) | Source::State(name) = &slot.source {
                let entry = weights.ensure(name, &slot.ty)?;
                match entry.held {
                    Some(memory) => held.push(memory),
                    None => drop(foreign.insert(index)),
                }
                stored.insert(index, (entry.buffer, entry.offset));
            }
        }
        recording.read_as_buffers(&foreign);
        let plan = planner(&recording, gpu.caps(), &own.placed())?;
        let (inputs, input_offsets) = InputBuffer::new(&recording, &own.inputs);
        let (constants, constant_offsets) = constants(&recording)?;
        let bytes = plan.peak() + inputs.size() + constants.len() as u64 + own.made + texture_bytes(&recording);
        held.push(gpu.hold("a program", bytes)?);
        let arenas = (plan.arenas.iter().enumerate())
            .map(|(index, size)| gpu.buffer(&format!("arena {index}"), *size, TENSORS))
            .collect::<Result<Vec<_>>>()?;
        let input_buffer = gpu.buffer("inputs", inputs.size(), TENSORS)?;
        let constant_buffer = gpu.buffer("constants", constants.len() as u64, TENSORS)?;
        gpu.write(&constant_buffer, 0, &constants)?;
        let mut memory = Vec::with_capacity(recording.slots.len());
        for (index, slot) in recording.slots.iter().enumerate() {
            let place = match &slot.source {
                Source::Parameter(_) | Source::State(_) => stored.remove(&index),
                Source::Constant(..) => Some((constant_buffer.clone(), constant_offsets[&index])),
                Source::Input(_) => input_offsets.get(&index).map(|offset| (input_buffer.clone(), *offset)),
                Source::Temporary => plan.allocations[index].map(|p| (arenas[p.arena].clone(), p.offset)),
            };
            memory.push(own.slots.get(&index).cloned().or(place));
        }
        let memory = SlotMemory::new(gpu, &recording, memory)?;
        memory.check_mixed(&recording, &foreign)?;
        own.check_copies(&memory)?;
        gpu.prepare_meter();
        let (gpu, pipelines) = (gpu.clone(), Vec::new());
        Ok(Self { gpu, recording, plan, own, memory, arenas, input_buffer, inputs, budget, held, pipelines })
    }

    /// Compiles kernels for about this time, at least one; returns whether any remain. One kernel takes milliseconds on most drivers, and up to a
    /// second on drivers that compute on the CPU; a kernel that the [`Gpu`] compiled before takes nothing.
    ///
    /// # Errors
    /// [`Error::Shader`] if a kernel does not compile; [`Error::DeviceLost`].
    pub fn advance(&mut self, time: Duration) -> Result<bool> {
        let start = Instant::now();
        while let Some(dispatch) = self.recording.dispatches.get(self.pipelines.len()) {
            self.pipelines.push(pipeline(&self.gpu, dispatch)?);
            if start.elapsed() >= time {
                break;
            }
        }
        Ok(self.pipelines.len() < self.recording.dispatches.len())
    }

    /// The share of the dispatches whose kernels are compiled, from 0 to 1.
    #[must_use]
    pub fn progress(&self) -> f64 {
        let count = self.recording.dispatches.len();
        if count == 0 { 1.0 } else { self.pipelines.len() as f64 / count as f64 }
    }

    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The recording.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Compiles what remains, and gives the program. Behind the last [`Preparation::advance`] only bindings are made, some microseconds each.
    ///
    /// # Errors
    /// As [`Preparation::advance`]; [`Error::OutOfMemory`].
    pub fn finish(self) -> Result<Program> {
        let Self { gpu, recording, plan, own, memory, arenas, input_buffer, inputs, budget, held, pipelines } = self;
        let considered = budget.unwrap_or_else(|| Budget::now(&gpu));
        let launches = Arc::new(Launches::new(&gpu, &recording, &memory, considered, &pipelines)?);
        launches.rehearse(&gpu, &recording)?;
        let cutting = Cutting { launches, considered };
        let (pieces, cutting, follows) = (Mutex::new(cutting.clone()), Mutex::new(cutting), budget.is_none());
        // All inputs fit one chunk.
        let running = ReentrantMutex::new(RefCell::new(Uploads::new(&gpu, inputs.size() + ALIGNMENT)));
        let (inputs, begun) = (Mutex::new(inputs), Mutex::default());
        Ok(Program {
            gpu,
            recording,
            plan,
            own,
            memory,
            arenas,
            input_buffer,
            inputs,
            running,
            begun,
            cutting,
            pieces,
            follows,
            _held: held,
        })
    }
}

/// All constants of a recording side by side, and the offset of each slot's. A shared constant is stored once.
fn constants(recording: &Recording) -> Result<(Vec<u8>, HashMap<usize, u64>)> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut offsets = HashMap::new();
    let mut known = HashMap::new();
    for (index, slot) in recording.slots.iter().enumerate() {
        if let Source::Constant(value, dtype) = &slot.source {
            let offset = match known.entry((Arc::as_ptr(value), *dtype)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let (offset, made) = (bytes.len() as u64, value.value());
                    if made.data.len() != slot.ty.shape.numel() {
                        let what = format!("the constant {} has {} elements", slot.label, made.data.len());
                        return Err(Error::Graph(format!("{what}, its shape is {}", slot.ty.shape)));
                    }
                    bytes.extend(pack(&made.data, *dtype));
                    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
                    *new.insert(offset)
                }
            };
            offsets.insert(index, offset);
        }
    }
    Ok((bytes, offsets))
}
