//! A recording made ready for one device, and run.

use super::{Recording, Source, Weights};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::kernel::{Access, Dispatch, View, assemble};
use std::collections::HashMap;

/// A recording with its buffers, pipelines and bind groups on one device.
#[derive(Debug)]
pub struct Program {
    gpu: Gpu,
    recording: Recording,
    buffers: Vec<(wgpu::Buffer, u64)>,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    grid: [u32; 2],
}

impl Program {
    /// Records a graph and prepares it for the device; weights and states come from the store.
    ///
    /// # Errors
    /// Those of recording; [`Error::OutOfMemory`]; [`Error::Shader`] if a kernel does not compile.
    pub fn new(gpu: &Gpu, graph: &Graph, weights: &Weights) -> Result<Self> {
        Self::prepare(gpu, Recording::new(graph, gpu.caps())?, weights)
    }

    /// Prepares a recording for the device.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn prepare(gpu: &Gpu, recording: Recording, weights: &Weights) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let mut buffers = Vec::with_capacity(recording.slots.len());
        for slot in &recording.slots {
            buffers.push(match &slot.source {
                Source::Parameter(name) | Source::State(name) => {
                    let entry = weights.ensure(name, &slot.ty)?;
                    (entry.buffer, entry.offset)
                }
                Source::Constant(value, dtype) => {
                    let buffer = gpu.buffer(&slot.label, slot.ty.bytes(), usage)?;
                    gpu.queue().write_buffer(&buffer, 0, &pack(&value.data, *dtype));
                    (buffer, 0)
                }
                Source::Input(_) | Source::Temporary => (gpu.buffer(&slot.label, slot.ty.bytes(), usage)?, 0),
            });
        }
        let mut pipelines = HashMap::new();
        let mut steps = Vec::with_capacity(recording.dispatches.len());
        for dispatch in &recording.dispatches {
            steps.push(prepare_step(gpu, dispatch, &buffers, &mut pipelines)?);
        }
        Ok(Self { gpu: gpu.clone(), recording, buffers, steps })
    }

    /// The recording.
    #[must_use]
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// Writes an input, as the bytes that lie in GPU memory.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such input or the size differs.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let found = self.recording.slots.iter().position(|s| matches!(&s.source, Source::Input(n) if n == name));
        let index = found.ok_or_else(|| Error::input(name, "the program has no input of this name"))?;
        let ty = &self.recording.slots[index].ty;
        if bytes.len() as u64 != ty.bytes() {
            return Err(Error::input(name, format!("{ty} takes {} bytes, got {}", ty.bytes(), bytes.len())));
        }
        let (buffer, offset) = &self.buffers[index];
        self.gpu.queue().write_buffer(buffer, *offset, bytes);
        Ok(())
    }

    /// Encodes and submits one run.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn run(&self) -> Result<()> {
        let mut encoder = self.gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder);
        self.gpu.queue().submit([encoder.finish()]);
        Ok(())
    }

    /// Encodes one run into the caller's encoder.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in &self.steps {
            pass.set_pipeline(&step.pipeline);
            pass.set_bind_group(0, &step.bind_group, &[]);
            pass.dispatch_workgroups(step.grid[0], step.grid[1], 1);
        }
    }

    fn output(&self, name: &str) -> Result<&View> {
        let found = self.recording.outputs.iter().find(|(n, _)| n == name);
        found.map(|(_, view)| view).ok_or_else(|| Error::input(name, "the program has no output of this name"))
    }

    /// Reads an output back as it lies in GPU memory.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such output; [`Error::DeviceLost`].
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let view = self.output(name)?;
        let (buffer, offset) = &self.buffers[view.slot];
        self.gpu.read(buffer, offset + view.dtype.bytes(view.start), view.bytes())
    }

    /// Reads an f32 output back.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&self.read(name)?))
    }

    /// Fills all planned memory with a byte pattern; tests use NaN, so that what is not written shows.
    pub fn fill_temporaries(&self, pattern: u32) {
        for (slot, (buffer, offset)) in self.recording.slots.iter().zip(&self.buffers) {
            if matches!(slot.source, Source::Temporary) {
                let words = vec![pattern; slot.ty.bytes() as usize / 4];
                self.gpu.queue().write_buffer(buffer, *offset, bytemuck::cast_slice(&words));
            }
        }
    }
}

/// Values as they lie in GPU memory.
#[must_use]
pub fn pack(values: &[f64], dtype: crate::dtype::DType) -> Vec<u8> {
    use crate::dtype::DType;
    let mut bytes: Vec<u8> = match dtype {
        DType::F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        DType::I32 => values.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| half::f16::from_f64(x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| half::bf16::from_f64(x).to_le_bytes()).collect(),
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn prepare_step(
    gpu: &Gpu,
    dispatch: &Dispatch,
    buffers: &[(wgpu::Buffer, u64)],
    pipelines: &mut HashMap<String, wgpu::ComputePipeline>,
) -> Result<Step> {
    let shader = assemble(dispatch);
    let pipeline = match pipelines.get(&shader.text) {
        Some(pipeline) => pipeline.clone(),
        None => {
            let pipeline = compile(gpu, dispatch, &shader)?;
            pipelines.insert(shader.text.clone(), pipeline.clone());
            pipeline
        }
    };
    let mut words = vec![0, dispatch.groups];
    words.extend(&dispatch.params);
    let size = (words.len() as u64 * 4).next_multiple_of(16);
    let params = gpu.buffer("params", size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
    gpu.queue().write_buffer(&params, 0, bytemuck::cast_slice(&words));
    let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: params.as_entire_binding() }];
    for (index, binding) in dispatch.bindings.iter().enumerate() {
        let (buffer, offset) = &buffers[binding.view.slot];
        entries.push(wgpu::BindGroupEntry {
            binding: index as u32 + 1,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: offset + binding.view.dtype.bytes(binding.view.start),
                size: std::num::NonZeroU64::new(binding.view.bytes()),
            }),
        });
    }
    let layout = pipeline.get_bind_group_layout(0);
    let bind_group = gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(&dispatch.label),
        layout: &layout,
        entries: &entries,
    });
    let width = dispatch.groups.min(gpu.caps().max_groups);
    Ok(Step { pipeline, bind_group, grid: [width, dispatch.groups.div_ceil(width.max(1))] })
}

fn compile(gpu: &Gpu, dispatch: &Dispatch, shader: &crate::kernel::ShaderText) -> Result<wgpu::ComputePipeline> {
    let device = gpu.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(shader.entry),
        source: wgpu::ShaderSource::Wgsl(shader.text.as_str().into()),
    };
    // SAFETY: the kernels guard every index themselves, and the conformance suite runs them with checks on as well.
    let module = unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) };
    let mut entries = vec![layout_entry(0, wgpu::BufferBindingType::Uniform)];
    for (index, binding) in dispatch.bindings.iter().enumerate() {
        let read_only = binding.access == Access::Read;
        entries.push(layout_entry(index as u32 + 1, wgpu::BufferBindingType::Storage { read_only }));
    }
    let group = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&group)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(shader.entry),
        layout: Some(&layout),
        module: &module,
        entry_point: Some(shader.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    match pollster::block_on(scope.pop()) {
        None => Ok(pipeline),
        Some(error) => Err(Error::Shader { place: format!("{}.wgsl", shader.entry), message: error.to_string() }),
    }
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
