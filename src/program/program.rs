//! A recording made ready for one device, and run.

use super::cut::speed_after;
use super::inputs::Inputs;
use super::{Budget, MemoryReport, Plan, Recording, Source, Weights, cost, cut, pack, submissions, tune};
use crate::error::{Error, Result};
use crate::gpu::{Bound, Gpu, Readback, TENSORS, Uploads, Work};
use crate::graph::Graph;
use crate::kernel::{Binding, Dispatch, View, assemble};
use crate::software::{Copy, Operands};
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};
use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Offsets of parameter blocks and constants: what every adapter accepts as a binding offset.
const ALIGNMENT: u64 = 256;

/// A recording with its buffers, pipelines and bind groups on one device.
///
/// Everything that can be decided before a step has been decided: a run encodes and submits, and creates nothing.
#[derive(Debug)]
pub struct Program {
    gpu: Gpu,
    recording: Recording,
    plan: Plan,
    memory: Vec<Option<(wgpu::Buffer, u64)>>,
    arenas: Vec<wgpu::Buffer>,
    input_buffer: wgpu::Buffer,
    inputs: Mutex<Inputs>,
    /// Held while a run is encoded, and until its last submission if it has several; the thread that has it may come again, from
    /// one of wgpu's callbacks.
    running: ReentrantMutex<RefCell<Uploads>>,
    steps: Vec<Step>,
    costs: Vec<f64>,
}

/// One launch, or one range of one.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) dispatch: usize,
    /// The share of the dispatch's workgroups that this launch runs.
    pub(super) share: f64,
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: [u32; 2],
    /// What has to be copied into textures first.
    copies: Vec<Copy>,
}

impl Step {
    /// Encodes the launch behind another one of the same pass.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, before: Option<&Self>) {
        if before.is_none_or(|before| before.pipeline != self.pipeline) {
            pass.set_pipeline(&self.pipeline);
        }
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], 1);
    }
}

impl Program {
    /// Records a graph ([`Program::record`]) and prepares it for the device; weights and states come from the store.
    ///
    /// # Errors
    /// Those of recording; [`Error::OutOfMemory`]; [`Error::Shader`] if a kernel does not compile.
    pub fn new(gpu: &Gpu, graph: &Graph, weights: &Weights) -> Result<Self> {
        Self::prepare(gpu, Self::record(gpu, graph)?, weights)
    }

    /// What [`Program::new`] records: the graph in the variants that were chosen for the device, after tuning, if
    /// [`Gpu::tune`] says so.
    ///
    /// # Errors
    /// Those of recording; [`Error::DeviceLost`].
    pub fn record(gpu: &Gpu, graph: &Graph) -> Result<Recording> {
        tune(gpu, graph)?;
        Recording::with_choices(graph, gpu.caps(), &gpu.choices())
    }

    /// Prepares a recording for the device.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare(gpu: &Gpu, recording: Recording, weights: &Weights) -> Result<Self> {
        let budget = Budget::new(gpu.caps(), gpu.speed());
        Self::prepare_within(gpu, recording, weights, budget)
    }

    /// Prepares a recording with a given budget for the length of one dispatch.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare_within(gpu: &Gpu, recording: Recording, weights: &Weights, budget: Budget) -> Result<Self> {
        let recording = recording.trusted_on(gpu.caps());
        let plan = Plan::new(&recording, gpu.caps())?;
        let arenas = (plan.arenas.iter().enumerate())
            .map(|(index, size)| gpu.buffer(&format!("arena {index}"), *size, TENSORS))
            .collect::<Result<Vec<_>>>()?;
        let (inputs, input_offsets) = Inputs::new(&recording);
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
                Source::Temporary => plan.places[index].map(|p| (arenas[p.arena].clone(), p.offset)),
            });
        }
        let place = |dispatch: &Dispatch, view: &View| place(dispatch, view, &memory);
        let operands = Operands::new(gpu, &recording, place)?;
        let launches: Vec<(usize, Range<u32>)> = (recording.dispatches.iter().enumerate())
            .flat_map(|(index, dispatch)| cut(dispatch, budget).into_iter().map(move |range| (index, range)))
            .collect();
        let params = upload_params(gpu, &recording, &launches)?;
        let mut steps = Vec::with_capacity(launches.len());
        let mut costs = Vec::with_capacity(launches.len());
        for (number, (index, range)) in launches.into_iter().enumerate() {
            let dispatch = &recording.dispatches[index];
            let (offset, size) = params.blocks[number];
            let uniform = wgpu::BufferBinding { buffer: &params.buffer, offset, size: NonZeroU64::new(size) };
            let views = operands.views(index, dispatch, place)?;
            let mut step = prepare_step(gpu, index, dispatch, range.clone(), uniform, &memory, &views)?;
            if range.start == 0 {
                // The other ranges of a dispatch that was cut find what the first one copied.
                step.copies = operands.copies(index, dispatch, place)?;
            }
            costs.push(cost(dispatch) * step.share);
            steps.push(step);
        }
        // All inputs fit one chunk.
        let running = ReentrantMutex::new(RefCell::new(Uploads::new(gpu, inputs.size() + ALIGNMENT)));
        let inputs = Mutex::new(inputs);
        let program =
            Self { gpu: gpu.clone(), recording, plan, memory, arenas, input_buffer, inputs, running, steps, costs };
        program.rehearse()?;
        Ok(program)
    }

    /// Encodes the launches of kernels that are not trusted, and drops them: what wgpu sees only then (bindings too small for what the
    /// text declares) is told before the first run.
    fn rehearse(&self) -> Result<()> {
        let strange = |step: &&Step| !self.recording.dispatches[step.dispatch].is_trusted();
        for step in self.steps.iter().filter(strange) {
            let dispatch = &self.recording.dispatches[step.dispatch];
            self.gpu.scoped(&format!("{} ({})", dispatch.label, dispatch.kernel.name), || {
                let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
                step.encode(&mut encoder.begin_compute_pass(&Default::default()), None);
                encoder.finish()
            })?;
        }
        Ok(())
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

    /// The memory in numbers.
    #[must_use]
    pub fn memory(&self) -> MemoryReport {
        MemoryReport::new(&self.recording, &self.plan)
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The launches that go into one submission each, by the speed that the device has shown.
    pub(super) fn submissions(&self) -> Vec<Range<usize>> {
        submissions(&self.costs, Budget::new(self.gpu.caps(), self.gpu.speed()))
    }

    /// Whether the program reads an input of this name: one that nothing depends on is left out.
    #[must_use]
    pub fn has_input(&self, name: &str) -> bool {
        self.inputs().place(name).is_ok()
    }

    /// Writes an input, as the bytes that lie in GPU memory. It is sent with the next run.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input, the size differs, or an id or label names nothing that is there.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.inputs().write(name, bytes)
    }

    fn inputs(&self) -> MutexGuard<'_, Inputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes and submits one run. It does not wait. Runs by several threads follow one another.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; [`Error::Graph`] in a callback of wgpu that is called in the middle of another run of the program.
    pub fn run(&self) -> Result<()> {
        self.run_reading(&[]).map(drop)
    }

    /// Encodes and submits one run, and the readback of outputs with it: their values of this run arrive in the returned
    /// handles, whatever is submitted meanwhile. After an error the next run sends the inputs again.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output; [`Error::OutOfMemory`]; those of [`Program::run`].
    pub fn run_reading(&self, outputs: &[&str]) -> Result<Vec<Readback>> {
        let outputs = outputs.iter().map(|name| self.output_buffer(name)).collect::<Result<Vec<_>>>()?;
        let running = self.running.lock();
        let mut uploads = uploads_of(&running)?;
        let mut encoder = self.gpu.encoder("step");
        let sent = self.send_inputs(&mut uploads, &mut encoder)?;
        let submitted = self.submit_all(encoder, &outputs, uploads);
        submitted.inspect_err(|_| self.inputs().take_back(sent))
    }

    /// Submits a run in as many pieces as the budget wants; the uploads are kept from others until none can come in between.
    fn submit_all(
        &self,
        mut encoder: wgpu::CommandEncoder,
        outputs: &[(&wgpu::Buffer, u64, u64)],
        uploads: RefMut<'_, Uploads>,
    ) -> Result<Vec<Readback>> {
        let mut ranges = self.submissions();
        // Outputs may be read of a program that computes nothing.
        let last = ranges.pop().unwrap_or(0..0);
        let work = self.gpu.work();
        for range in ranges {
            self.encode_range(&mut encoder, range);
            let next = self.gpu.encoder("step");
            self.gpu.submit("a step", [std::mem::replace(&mut encoder, next)])?;
        }
        self.encode_range(&mut encoder, last);
        let readback = |&(buffer, offset, size): &(_, u64, u64)| self.gpu.readback(&mut encoder, buffer, offset, size);
        let readbacks: Vec<Readback> = outputs.iter().map(readback).collect::<Result<_>>()?;
        drop(uploads);
        let submission = self.gpu.submit("a step", [encoder])?;
        self.learn_speed(work);
        Ok(readbacks.into_iter().map(|r| r.after(&submission)).collect())
    }

    /// Encodes one run into the caller's encoder, between the caller's own commands. The inputs' values are taken now.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`]; [`Error::Graph`] as [`Program::run`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        let running = self.running.lock();
        self.send_inputs(&mut *uploads_of(&running)?, encoder)?;
        self.encode_range(encoder, 0..self.steps.len());
        Ok(())
    }

    /// Encodes the readback of an output into the caller's encoder, behind what was encoded so far.
    ///
    /// # Errors
    /// As [`Program::run_reading`].
    pub fn readback(&self, encoder: &mut wgpu::CommandEncoder, output: &str) -> Result<Readback> {
        let (buffer, offset, size) = self.output_buffer(output)?;
        self.gpu.readback(encoder, buffer, offset, size)
    }

    /// Sends what was written since the last run; gives what that was.
    fn send_inputs(&self, uploads: &mut Uploads, encoder: &mut wgpu::CommandEncoder) -> Result<Vec<Range<usize>>> {
        if !self.inputs().written() {
            return Ok(Vec::new());
        }
        // While the ring waits for a chunk, wgpu's callbacks run, which may write inputs.
        uploads.reserve()?;
        let sent = self.inputs().send(|offset, bytes| uploads.write(encoder, &self.input_buffer, offset, bytes))?;
        uploads.finish(encoder).inspect_err(|_| self.inputs().take_back(sent.clone()))?;
        Ok(sent)
    }

    fn encode_range(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        self.encode_steps(encoder, range, |_, _| ());
    }

    /// Encodes launches, and the copies that they need between passes; `behind` is called behind each with its number.
    pub(super) fn encode_steps(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        range: Range<usize>,
        mut behind: impl FnMut(&mut wgpu::ComputePass<'_>, usize),
    ) {
        let mut first = range.start;
        while first < range.end {
            for copy in &self.steps[first].copies {
                copy.encode(encoder);
            }
            let next = (first + 1..range.end).find(|&s| !self.steps[s].copies.is_empty()).unwrap_or(range.end);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            let mut before = None;
            for (index, step) in self.steps[first..next].iter().enumerate() {
                step.encode(&mut pass, before);
                before = Some(step);
                behind(&mut pass, first + index);
            }
            first = next;
        }
    }

    /// Learns the device's speed when a run is done. The callback must not own the device, which owns the callback.
    fn learn_speed(&self, work: Work) {
        let (class, cost) = (self.gpu.caps().class, self.costs.iter().sum());
        self.gpu.queue().on_submitted_work_done(move || {
            let (done, seconds) = work.done(cost);
            if let Some(speed) = speed_after(class, work.speed().known(), done, seconds) {
                work.speed().learn(speed);
            }
        });
    }

    /// Where an input lies: buffer, offset and size in bytes, for applications that fill it with passes of their own. What
    /// [`Program::write`] was given since the last run would be sent over it.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input.
    pub fn input_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        let (offset, size) = self.inputs().place(name)?;
        Ok((&self.input_buffer, offset, size))
    }

    fn output(&self, name: &str) -> Result<&View> {
        let found = self.recording.outputs.iter().find(|(n, _)| n == name);
        found.map(|(_, view)| view).ok_or_else(|| {
            let names: Vec<&str> = self.recording.outputs.iter().map(|(n, _)| n.as_str()).collect();
            Error::input(name, format!("the program has no output of this name; it has: {}", names.join(", ")))
        })
    }

    /// Where an output lies: buffer, offset and size in bytes. The content is that of the last run until the next.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output.
    pub fn output_buffer(&self, name: &str) -> Result<(&wgpu::Buffer, u64, u64)> {
        let view = self.output(name)?;
        let place = self.memory[view.slot].as_ref();
        let (buffer, offset) = place.ok_or_else(|| Error::input(name, "the output has no memory"))?;
        Ok((buffer, offset + view.dtype.bytes(view.start), view.bytes()))
    }

    /// Reads an output back as it lies in GPU memory, waiting for the work submitted so far.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output; [`Error::DeviceLost`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let (buffer, offset, size) = self.output_buffer(name)?;
        self.gpu.read(buffer, offset, size)
    }

    /// Reads an f32 output back.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read(name)?))
    }

    /// Fills all planned memory with a pattern; tests use NaN, so that what is not written shows.
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
}

/// The uploads of a program, unless its own thread is in the middle of a run.
fn uploads_of<'a>(running: &'a ReentrantMutexGuard<'_, RefCell<Uploads>>) -> Result<RefMut<'a, Uploads>> {
    running.try_borrow_mut().map_err(|_| {
        Error::Graph(
            "a callback of wgpu runs a program in the middle of a run of the same; start it where the callback ends"
                .into(),
        )
    })
}

/// All constants of a recording side by side in one buffer, and where each slot's lies. Equal ones are stored once.
fn constants(gpu: &Gpu, recording: &Recording) -> Result<(wgpu::Buffer, HashMap<usize, u64>)> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut offsets = HashMap::new();
    let mut known = HashMap::new();
    for (index, slot) in recording.slots.iter().enumerate() {
        if let Source::Constant(value, dtype) = &slot.source {
            let offset = *known.entry((Arc::as_ptr(value), *dtype)).or_insert_with(|| {
                let offset = bytes.len() as u64;
                bytes.extend(pack(&value.data, *dtype));
                bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
                offset
            });
            offsets.insert(index, offset);
        }
    }
    let buffer = gpu.buffer("constants", bytes.len() as u64, TENSORS)?;
    gpu.write(&buffer, 0, &bytes)?;
    Ok((buffer, offsets))
}

/// The uniform blocks of all launches in one buffer.
struct ParamBlocks {
    buffer: wgpu::Buffer,
    blocks: Vec<(u64, u64)>,
}

fn upload_params(gpu: &Gpu, recording: &Recording, launches: &[(usize, Range<u32>)]) -> Result<ParamBlocks> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut blocks = Vec::with_capacity(launches.len());
    for (index, range) in launches {
        let offset = bytes.len() as u64;
        let words = [range.start, range.end].into_iter().chain(recording.dispatches[*index].params.iter().copied());
        bytes.extend(words.flat_map(u32::to_le_bytes));
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        blocks.push((offset, bytes.len() as u64 - offset));
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    }
    let buffer =
        gpu.buffer("params", bytes.len() as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
    gpu.write(&buffer, 0, &bytes)?;
    Ok(ParamBlocks { buffer, blocks })
}

/// Where a view of a dispatch lies: buffer and offset in bytes.
fn place<'a>(
    dispatch: &Dispatch,
    view: &View,
    memory: &'a [Option<(wgpu::Buffer, u64)>],
) -> Result<(&'a wgpu::Buffer, u64)> {
    let place = memory[view.slot].as_ref();
    let (buffer, base) =
        place.ok_or_else(|| Error::Graph(format!("{} binds memory that was not planned", dispatch.label)))?;
    Ok((buffer, base + view.dtype.bytes(view.start)))
}

fn prepare_step(
    gpu: &Gpu,
    index: usize,
    dispatch: &Dispatch,
    range: Range<u32>,
    uniform: wgpu::BufferBinding<'_>,
    memory: &[Option<(wgpu::Buffer, u64)>],
    textures: &[Option<wgpu::TextureView>],
) -> Result<Step> {
    let shader = assemble(dispatch);
    let bound = |b: &Binding| match b.access {
        access if access.is_buffer() => Bound::Storage { read_only: access.only_reads() },
        _ => Bound::Texture,
    };
    let bound: Vec<Bound> = dispatch.bindings.iter().map(bound).collect();
    let pipeline =
        gpu.pipeline(shader.entry, &shader.text, &bound, dispatch.is_trusted()).map_err(|refused| Error::Shader {
            place: refused.line.map_or_else(|| format!("{}.wgsl", shader.entry), |line| shader.place(line)),
            message: refused.message,
        })?;
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
    for (number, (binding, texture)) in dispatch.bindings.iter().zip(textures).enumerate() {
        if let Some(view) = texture {
            let resource = wgpu::BindingResource::TextureView(view);
            entries.push(wgpu::BindGroupEntry { binding: number as u32 + 1, resource });
            continue;
        }
        let view = &binding.view;
        let (buffer, offset) = place(dispatch, view, memory)?;
        if offset % gpu.caps().offset_alignment != 0 {
            let message = format!("offset {offset} is no multiple of {}", gpu.caps().offset_alignment);
            return Err(Error::Validation { what: format!("binding {} of {}", number + 1, dispatch.label), message });
        }
        let resource =
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(view.bytes()) });
        entries.push(wgpu::BindGroupEntry { binding: number as u32 + 1, resource });
    }
    let layout = pipeline.get_bind_group_layout(0);
    let bind_group = gpu.scoped(&format!("the bindings of {}", dispatch.label), || {
        gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.label),
            layout: &layout,
            entries: &entries,
        })
    })?;
    let groups = range.len() as u32;
    let width = groups.min(gpu.caps().max_groups).max(1);
    let share = f64::from(groups) / f64::from(dispatch.groups.max(1));
    let grid = [width, groups.div_ceil(width)];
    Ok(Step { dispatch: index, share, pipeline, bind_group, grid, copies: Vec::new() })
}
