//! A recording that is prepared for one device and run.

use super::inputs::InputBuffer;
use super::launches::{Launches, SlotMemory};
use super::pieces::Begun;
use super::recut::{Cutting, locked};
use super::{Budget, MemoryReport, Plan, Recording, Source, Weights, pack, tune};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Readback, TENSORS, Uploads};
use crate::graph::Graph;
use crate::kernel::{Caps, View};
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// Offsets of constants: what every adapter accepts as a binding offset.
const ALIGNMENT: u64 = 256;

/// A recording with its buffers, pipelines and bind groups on one device.
///
/// Everything that can be decided before a step is decided: a run encodes and submits, and creates nothing. Only when the measured speed
/// of the device changes does the next run cut long dispatches again.
#[derive(Debug)]
pub struct Program {
    pub(super) gpu: Gpu,
    pub(super) recording: Recording,
    plan: Plan,
    pub(super) memory: SlotMemory,
    arenas: Vec<wgpu::Buffer>,
    input_buffer: wgpu::Buffer,
    inputs: Mutex<InputBuffer>,
    /// Held while a run is encoded, and until its last submission if it has several. The holding thread may lock it again from a
    /// callback of wgpu.
    pub(super) running: ReentrantMutex<RefCell<Uploads>>,
    begun: Mutex<Begun>,
    pub(super) cutting: Mutex<Cutting>,
    /// The launches as cut for [`Program::pieces`].
    pub(super) pieces: Mutex<Cutting>,
    /// Whether the budget follows the measured speed of the device.
    pub(super) follows: bool,
}

impl Program {
    /// Records a graph ([`Program::record`]) and prepares it for the device; weights and states come from the store.
    ///
    /// # Errors
    /// Those of recording; [`Error::OutOfMemory`]; [`Error::Shader`] if a kernel does not compile.
    pub fn new(gpu: &Gpu, graph: &Graph, weights: &Weights) -> Result<Self> {
        Self::prepare(gpu, Self::record(gpu, graph)?, weights)
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
        Self::build(gpu, recording, weights, None, Plan::new)
    }

    /// As [`Program::prepare`], with temporaries that share no memory and stand apart: [`Program::written_outside`] says what a kernel wrote
    /// outside its tensors. It takes more memory.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare_apart(gpu: &Gpu, recording: Recording, weights: &Weights) -> Result<Self> {
        Self::build(gpu, recording, weights, None, Plan::apart)
    }

    /// Prepares a recording with a fixed budget for the length of launches and submissions.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare_within(gpu: &Gpu, recording: Recording, weights: &Weights, budget: Budget) -> Result<Self> {
        Self::build(gpu, recording, weights, Some(budget), Plan::new)
    }

    fn build(
        gpu: &Gpu,
        recording: Recording,
        weights: &Weights,
        budget: Option<Budget>,
        plan: fn(&Recording, &Caps) -> Result<Plan>,
    ) -> Result<Self> {
        let recording = recording.trusted_on(gpu.caps());
        let plan = plan(&recording, gpu.caps())?;
        let arenas = (plan.arenas.iter().enumerate())
            .map(|(index, size)| gpu.buffer(&format!("arena {index}"), *size, TENSORS))
            .collect::<Result<Vec<_>>>()?;
        let (inputs, input_offsets) = InputBuffer::new(&recording);
        let input_buffer = gpu.buffer("inputs", inputs.size(), TENSORS)?;
        let (constants, constant_offsets) = constants(gpu, &recording)?;
        let mut memory = Vec::with_capacity(recording.slots.len());
        for (index, slot) in recording.slots.iter().enumerate() {
            memory.push(match &slot.source {
                Source::Parameter(name) | Source::State(name) => {
                    let entry = weights.ensure(name, &slot.ty)?;
                    Some((entry.buffer, entry.offset))
                }
                Source::Constant(..) => Some((constants.clone(), constant_offsets[&index])),
                Source::Input(_) => Some((input_buffer.clone(), input_offsets[&index])),
                Source::Temporary => plan.allocations[index].map(|p| (arenas[p.arena].clone(), p.offset)),
            });
        }
        let memory = SlotMemory::new(gpu, &recording, memory)?;
        gpu.prepare_meter();
        let considered = budget.unwrap_or_else(|| Budget::now(gpu));
        let launches = Arc::new(Launches::new(gpu, &recording, &memory, considered, None)?);
        launches.rehearse(gpu, &recording)?;
        let cutting = Cutting { launches, considered };
        let (pieces, cutting, follows) = (Mutex::new(cutting.clone()), Mutex::new(cutting), budget.is_none());
        // All inputs fit one chunk.
        let running = ReentrantMutex::new(RefCell::new(Uploads::new(gpu, inputs.size() + ALIGNMENT)));
        let inputs = Mutex::new(inputs);
        let gpu = gpu.clone();
        let begun = Mutex::default();
        Ok(Self {
            gpu,
            recording,
            plan,
            memory,
            arenas,
            input_buffer,
            inputs,
            running,
            begun,
            cutting,
            pieces,
            follows,
        })
    }

    /// The recording.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The memory plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The sizes of the memory by kind.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        MemoryReport::new(&self.recording, &self.plan)
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Whether the program has an input of this name. Inputs that no output depends on are left out.
    #[must_use]
    pub fn has_input(&self, name: &str) -> bool {
        self.inputs().range(name).is_ok()
    }

    /// Writes an input, as the bytes of GPU memory. The next run sends it.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input, the size differs, or an id or label is out of range.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.inputs().write(name, bytes)
    }

    pub(super) fn inputs(&self) -> MutexGuard<'_, InputBuffer> {
        locked(&self.inputs)
    }

    pub(super) fn begun(&self) -> MutexGuard<'_, Begun> {
        locked(&self.begun)
    }

    /// Begins a run and returns its number. An unfinished run in pieces ends.
    pub(super) fn begin(&self) -> u64 {
        let (number, left) = self.begun().begin();
        self.inputs().take_back(left);
        number
    }

    /// Encodes and submits one run without waiting. Runs of several threads are serialised.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Graph`] in a callback of wgpu that is called during another run of the program.
    pub fn run(&self) -> Result<()> {
        self.run_reading(&[]).map(drop)
    }

    /// Encodes one run into the caller's encoder, between the caller's own commands. The inputs' values are taken now.
    ///
    /// The whole run goes into this encoder, however long it takes. An application that draws frames encodes [`Program::pieces`] instead.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`]; [`Error::Graph`] as [`Program::run`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        let running = self.running.lock();
        let launches = self.cut_next()?;
        let mut uploads = uploads_of(&running)?;
        self.begin();
        self.send_inputs(&mut uploads, encoder)?;
        self.gpu.application_submits();
        launches.encode(encoder, 0..launches.steps.len(), self.gpu.stopwatch());
        Ok(())
    }

    /// Encodes the readback of an output at the end of the caller's encoder.
    ///
    /// # Errors
    /// As [`Program::run_reading`].
    pub fn readback(&self, encoder: &mut wgpu::CommandEncoder, output: &str) -> Result<Readback> {
        let (buffer, offset, size) = self.output_buffer(output)?;
        self.gpu.readback(encoder, buffer, offset, size)
    }

    /// Sends the inputs that were written since the last run, and returns their ranges.
    pub(super) fn send_inputs(
        &self,
        uploads: &mut Uploads,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<Vec<Range<usize>>> {
        if !self.inputs().written() {
            return Ok(Vec::new());
        }
        // While the ring waits for a chunk, wgpu's callbacks run, which may write inputs.
        uploads.reserve()?;
        let sent = self.inputs().send(|offset, bytes| uploads.write(encoder, &self.input_buffer, offset, bytes))?;
        uploads.finish(encoder).inspect_err(|_| self.inputs().take_back(sent.clone()))?;
        Ok(sent)
    }

    /// The memory of an input: buffer, offset and size in bytes, for applications that fill it with their own passes. A pending
    /// [`Program::write`] of the input would overwrite it.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input.
    pub fn input_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        let (offset, size) = self.inputs().range(name)?;
        Ok((&self.input_buffer, offset, size))
    }

    fn output(&self, name: &str) -> Result<&View> {
        let found = self.recording.outputs.iter().find(|(n, _)| n == name);
        found.map(|(_, view)| view).ok_or_else(|| {
            let names: Vec<&str> = self.recording.outputs.iter().map(|(n, _)| n.as_str()).collect();
            Error::input(name, format!("the program has no output of this name; it has: {}", names.join(", ")))
        })
    }

    /// The memory of an output: buffer, offset and size in bytes. It holds the value of the last run until the next.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output.
    pub fn output_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        let view = self.output(name)?;
        let place = self.memory.slot(view.slot);
        let (buffer, offset) = place.ok_or_else(|| Error::input(name, "the output has no memory"))?;
        Ok((buffer, offset + view.dtype.bytes(view.start), view.bytes()))
    }

    /// Waits for the work submitted so far and reads an output back, as the bytes of GPU memory.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output; [`Error::DeviceLost`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (buffer, offset, size) = self.output_buffer(name)?;
        self.gpu.read(buffer, offset, size)
    }

    /// The async form of [`Program::read`].
    ///
    /// # Errors
    /// As [`Program::read`].
    pub async fn read_async(&self, name: &str) -> Result<Vec<u8>> {
        let (buffer, offset, size) = self.output_buffer(name)?;
        self.gpu.read_async(buffer, offset, size).await
    }

    /// Reads an f32 output back.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read(name)?))
    }

    /// Fills all planned memory with a pattern. Tests use NaN to find elements that are never written.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn fill_temporaries(&self, pattern: u32) -> Result<()> {
        for (buffer, size) in self.arenas.iter().zip(&self.plan.arenas) {
            let words = vec![pattern; *size as usize / 4];
            self.gpu.write(buffer, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Of a program that was prepared apart ([`Program::prepare_apart`]) and filled with a pattern ([`Program::fill_temporaries`]): the temporary
    /// beside whose memory something else stands by now.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn written_outside(&self, pattern: u32) -> Result<Option<String>> {
        for (index, (buffer, size)) in self.arenas.iter().zip(&self.plan.arenas).enumerate() {
            let bytes = self.gpu.read(buffer, 0, *size)?;
            let mut owned: Vec<(usize, usize, &str)> = (self.plan.allocations.iter().zip(&self.recording.slots))
                .filter_map(|(place, slot)| Some((place.filter(|place| place.arena == index)?, slot)))
                .map(|(place, slot)| (place.offset as usize, slot.ty.bytes() as usize, slot.label.as_str()))
                .collect();
            owned.sort_unstable();
            let ends = owned.iter().map(|(start, length, label)| (start + length, *label));
            let starts = owned.iter().map(|(start, ..)| *start).skip(1).chain([bytes.len()]);
            let first = owned.first().map(|(start, _, label)| (0..*start, *label));
            let bands = ends.zip(starts).map(|((end, label), start)| (end.next_multiple_of(4)..start, label));
            for (band, label) in first.into_iter().chain(bands) {
                let words = bytes.get(band).unwrap_or_default().chunks_exact(4);
                if words.into_iter().any(|word| word != pattern.to_le_bytes()) {
                    return Ok(Some(label.to_owned()));
                }
            }
        }
        Ok(None)
    }
}

/// The uploads of a program; an error if this thread is already in a run of it.
pub(super) fn uploads_of<'a>(running: &'a ReentrantMutexGuard<'_, RefCell<Uploads>>) -> Result<RefMut<'a, Uploads>> {
    running.try_borrow_mut().map_err(|_| {
        Error::Graph(
"a callback of wgpu started a run of the program during another run of it: start the run after the callback returns"
                .into(),
        )
    })
}

/// All constants of a recording in one buffer, and the offset of each slot's. A shared constant is stored once.
fn constants(gpu: &Gpu, recording: &Recording) -> Result<(wgpu::Buffer, HashMap<usize, u64>)> {
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
    let buffer = gpu.buffer("constants", bytes.len() as u64, TENSORS)?;
    gpu.write(&buffer, 0, &bytes)?;
    Ok((buffer, offsets))
}
