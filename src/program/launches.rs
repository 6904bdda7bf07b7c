//! The launches of a program: its dispatches, cut into ranges of workgroups where they exceed the budget.

use super::Recording;
use super::cut::{Budget, RECUT_RATIO, cost, cut, submissions};
use crate::error::{Error, Result};
use crate::gpu::{BindingKind, Gpu, Stopwatch};
use crate::kernel::{Binding, Dispatch, View, assemble};
use crate::software::{Copy, Operands};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

/// Alignment of parameter blocks: a binding offset that every adapter accepts.
const ALIGNMENT: u64 = 256;

/// All launches of a run, in order.
#[derive(Debug)]
pub(super) struct Launches {
    pub(super) steps: Vec<Arc<Step>>,
    costs: Vec<f64>,
    budget: Budget,
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
    /// Copies into textures that go first.
    copies: Vec<Copy>,
}

/// The memory that launches bind.
#[derive(Debug)]
pub(super) struct SlotMemory {
    slots: Vec<Option<(wgpu::Buffer, u64)>>,
    operands: Operands,
}

impl SlotMemory {
    /// `slots` has a buffer and an offset in bytes for each slot.
    pub(super) fn new(gpu: &Gpu, recording: &Recording, slots: Vec<Option<(wgpu::Buffer, u64)>>) -> Result<Self> {
        let operands = Operands::new(gpu, recording, |dispatch, view| buffer_of(dispatch, view, &slots))?;
        Ok(Self { slots, operands })
    }

    /// The buffer and offset of a slot.
    pub(super) fn slot(&self, slot: usize) -> Option<&(wgpu::Buffer, u64)> {
        self.slots[slot].as_ref()
    }
}

/// The memory of a view of a dispatch: buffer and offset in bytes.
fn buffer_of<'a>(
    dispatch: &Dispatch,
    view: &View,
    slots: &'a [Option<(wgpu::Buffer, u64)>],
) -> Result<(&'a wgpu::Buffer, u64)> {
    let found = slots[view.slot].as_ref();
    let (buffer, base) =
        found.ok_or_else(|| Error::Graph(format!("{} binds memory that was not planned", dispatch.label)))?;
    Ok((buffer, base + view.dtype.bytes(view.start)))
}

/// A launch to be made.
struct Wanted<'a> {
    index: usize,
    range: Range<u32>,
    pipeline: wgpu::ComputePipeline,
    params: &'a [u32],
}

impl Launches {
    /// Makes the launches of a recording within a budget. The pipelines of its first dispatches may be there already.
    pub(super) fn new(
        gpu: &Gpu,
        recording: &Recording,
        memory: &SlotMemory,
        budget: Budget,
        pipelines: &[wgpu::ComputePipeline],
    ) -> Result<Self> {
        Self::make(gpu, recording, memory, budget, pipelines, &[])
    }

    /// As [`Launches::new`], where those that stay the same as for another budget are reused.
    pub(super) fn again(&self, gpu: &Gpu, recording: &Recording, memory: &SlotMemory, budget: Budget) -> Result<Self> {
        Self::make(gpu, recording, memory, budget, &[], &self.steps)
    }

    fn make(
        gpu: &Gpu,
        recording: &Recording,
        memory: &SlotMemory,
        budget: Budget,
        pipelines: &[wgpu::ComputePipeline],
        mut known: &[Arc<Step>],
    ) -> Result<Self> {
        // Reused launches, and gaps for those that are made below.
        let mut steps: Vec<Option<Arc<Step>>> = Vec::with_capacity(recording.dispatches.len());
        let mut wanted = Vec::new();
        for (index, dispatch) in recording.dispatches.iter().enumerate() {
            let (old, rest) = known.split_at(known.iter().take_while(|step| step.dispatch == index).count());
            known = rest;
            let ranges = cut(dispatch, budget);
            if ranges.len() == old.len() {
                steps.extend(old.iter().cloned().map(Some));
                continue;
            }
            let pipeline = match old.first().map(|step| &step.pipeline).or(pipelines.get(index)) {
                Some(pipeline) => pipeline.clone(),
                None => pipeline(gpu, dispatch)?,
            };
            for range in ranges {
                wanted.push(Wanted { index, range, pipeline: pipeline.clone(), params: &dispatch.params });
                steps.push(None);
            }
        }
        let (params, blocks) = params(gpu, &wanted)?;
        let mut made = wanted.into_iter().zip(blocks).map(|(wanted, (offset, size))| {
            let uniform = wgpu::BufferBinding { buffer: &params, offset, size: NonZeroU64::new(size) };
            Step::new(gpu, recording, memory, wanted, uniform).map(Arc::new)
        });
        let steps = steps
            .into_iter()
            .filter_map(|reused| reused.map(Ok).or_else(|| made.next()))
            .collect::<Result<Vec<_>>>()?;
        let costs = steps.iter().map(|step| cost(&recording.dispatches[step.dispatch]) * step.share).collect();
        Ok(Self { steps, costs, budget })
    }

    /// Encodes the launches of kernels that are not trusted, and drops them: errors that wgpu finds only there (bindings smaller than the
    /// text declares) are reported before the first run.
    pub(super) fn rehearse(&self, gpu: &Gpu, recording: &Recording) -> Result<()> {
        for step in self.steps.iter().filter(|step| !recording.dispatches[step.dispatch].is_trusted()) {
            let dispatch = &recording.dispatches[step.dispatch];
            gpu.scoped(&format!("{} ({})", dispatch.label, dispatch.kernel.name), || {
                let mut encoder = gpu.device().create_command_encoder(&Default::default());
                step.encode(&mut encoder.begin_compute_pass(&Default::default()), None);
                encoder.finish()
            })?;
        }
        Ok(())
    }

    /// Whether the launches must be made again for a budget: some exceed it, or there are far more than it needs.
    pub(super) fn outdated(&self, recording: &Recording, budget: Budget) -> bool {
        let count = recording.dispatches.iter().map(|dispatch| cut(dispatch, budget).len()).sum::<usize>();
        count > self.steps.len() || count as f64 * RECUT_RATIO <= self.steps.len() as f64
    }

    /// The operations of all launches.
    pub(super) fn cost(&self, range: Range<usize>) -> f64 {
        self.costs[range].iter().sum()
    }

    /// The launches that go into one submission each.
    pub(super) fn submissions(&self, budget: Budget) -> Vec<Range<usize>> {
        submissions(&self.costs, budget)
    }

    /// The launches from `first` on that go into one piece: at least one, and more while they fit the budget.
    pub(super) fn piece(&self, first: usize, budget: Budget) -> Range<usize> {
        let mut sum = 0.0;
        let within = self.costs[first..].iter().take_while(|cost| {
            sum += **cost;
            sum <= budget.submission
        });
        first..(first + within.count().max(1)).min(self.steps.len())
    }

    /// The budget of the launches.
    pub(super) fn budget(&self) -> Budget {
        self.budget
    }

    /// Encodes launches, with the copies that they need between passes; a stopwatch measures their time.
    pub(super) fn encode(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        range: Range<usize>,
        stopwatch: Option<Stopwatch<'_>>,
    ) {
        self.encode_with(encoder, range.clone(), stopwatch.as_ref(), |_, _| ());
        if let Some(stopwatch) = stopwatch.filter(|_| !range.is_empty()) {
            stopwatch.stop(encoder, self.cost(range));
        }
    }

    /// As [`Launches::encode`]; `after_launch` is called after each launch with its number.
    pub(super) fn encode_with(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        range: Range<usize>,
        stopwatch: Option<&Stopwatch<'_>>,
        mut after_launch: impl FnMut(&mut wgpu::ComputePass<'_>, usize),
    ) {
        let mut first = range.start;
        while first < range.end {
            for copy in &self.steps[first].copies {
                copy.encode(encoder);
            }
            let next = (first + 1..range.end).find(|&s| !self.steps[s].copies.is_empty()).unwrap_or(range.end);
            let timestamp_writes = stopwatch.and_then(|s| s.of_pass(first == range.start, next == range.end));
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            let mut before = None;
            for (index, step) in self.steps[first..next].iter().enumerate() {
                step.encode(&mut pass, before);
                before = Some(&**step);
                after_launch(&mut pass, first + index);
            }
            first = next;
        }
    }
}

impl Step {
    fn new(
        gpu: &Gpu,
        recording: &Recording,
        memory: &SlotMemory,
        wanted: Wanted<'_>,
        uniform: wgpu::BufferBinding<'_>,
    ) -> Result<Self> {
        let Wanted { index, range, pipeline, .. } = wanted;
        let dispatch = &recording.dispatches[index];
        let buffer_of = |dispatch: &Dispatch, view: &View| buffer_of(dispatch, view, &memory.slots);
        let textures = memory.operands.views(index, dispatch, buffer_of)?;
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
        for (number, (binding, texture)) in dispatch.bindings.iter().zip(&textures).enumerate() {
            if let Some(view) = texture {
                let resource = wgpu::BindingResource::TextureView(view);
                entries.push(wgpu::BindGroupEntry { binding: number as u32 + 1, resource });
                continue;
            }
            let view = &binding.view;
            let (buffer, offset) = buffer_of(dispatch, view)?;
            if offset % gpu.caps().offset_alignment != 0 {
                let message = format!("offset {offset} is no multiple of {}", gpu.caps().offset_alignment);
                return Err(Error::Validation {
                    what: format!("binding {} of {}", number + 1, dispatch.label),
                    message,
                });
            }
            let size = NonZeroU64::new(view.bytes());
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size });
            entries.push(wgpu::BindGroupEntry { binding: number as u32 + 1, resource });
        }
        let bind_group = gpu.bind_group(&dispatch.label, &pipeline, &entries)?;
        // The first range of a cut dispatch copies for the others, too.
        let copies = if range.start == 0 { memory.operands.copies(index, dispatch, buffer_of)? } else { Vec::new() };
        let groups = range.len() as u32;
        let width = groups.min(gpu.caps().max_groups).max(1);
        let share = f64::from(groups) / f64::from(dispatch.groups.max(1));
        let grid = [width, groups.div_ceil(width)];
        Ok(Self { dispatch: index, share, pipeline, bind_group, grid, copies })
    }

    /// Encodes the launch after another one of the same pass.
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, before: Option<&Self>) {
        if before.is_none_or(|before| before.pipeline != self.pipeline) {
            pass.set_pipeline(&self.pipeline);
        }
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], 1);
    }
}

/// The pipeline of a dispatch, compiled if the device has not it yet.
pub(super) fn pipeline(gpu: &Gpu, dispatch: &Dispatch) -> Result<wgpu::ComputePipeline> {
    let shader = assemble(dispatch, gpu.dialect());
    let bound = |b: &Binding| match b.access {
        access if access.is_buffer() => BindingKind::Storage { read_only: access.only_reads() },
        _ => BindingKind::Texture,
    };
    let bound: Vec<BindingKind> = dispatch.bindings.iter().map(bound).collect();
    gpu.pipeline(shader.entry, &shader.text, &bound, dispatch.is_trusted()).map_err(|refused| Error::Shader {
        location: refused.line.map_or_else(|| format!("{}.wgsl", shader.entry), |line| shader.location(line)),
        message: refused.message,
    })
}

/// The uniform blocks of launches in one buffer, with offset and size of each.
fn params(gpu: &Gpu, launches: &[Wanted<'_>]) -> Result<(wgpu::Buffer, Vec<(u64, u64)>)> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut blocks = Vec::with_capacity(launches.len());
    for Wanted { range, params, .. } in launches {
        let offset = bytes.len() as u64;
        let words = [range.start, range.end].into_iter().chain(params.iter().copied());
        bytes.extend(words.flat_map(u32::to_le_bytes));
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        blocks.push((offset, bytes.len() as u64 - offset));
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    }
    Ok((gpu.filled_buffer("params", wgpu::BufferUsages::UNIFORM, &bytes)?, blocks))
}
