//! The engine inside an application that already has a wgpu device: the application's own compute pass makes the input,
//! the engine's program runs behind it in the same command encoder, and the application's next pass reads the result
//! where it lies, without a copy.
//!
//! Run it with `cargo run --example embed`.

use wgformer::ops::{self, Activation, WeightLayout};
use wgformer::{DType, Gpu, Graph, Program, Weights};

/// Rows and columns of the application's data.
const SHAPE: [usize; 2] = [31, 33];
/// Columns of the engine's result.
const OUT: usize = 17;

/// The application's shaders: `wave` fills a buffer, `negate` works on the engine's output.
const APPLICATION: &str = "
    @group(0) @binding(0) var<storage, read_write> data: array<f32>;
    @compute @workgroup_size(64) fn wave(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&data)) { data[id.x] = sin(f32(id.x) * 0.01); }
    }
    @compute @workgroup_size(64) fn negate(@builtin(global_invocation_id) id: vec3u) {
        if (id.x < arrayLength(&data)) { data[id.x] = -data[id.x]; }
    }
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for adapter in Gpu::adapters() {
        let out = run(&adapter)?;
        println!("{}: {} values, the first {:?}", adapter.get_info().name, out.len(), &out[..4]);
    }
    Ok(())
}

/// One frame of the application on one adapter; returns the negated output of the engine.
///
/// # Errors
/// Those of wgpu and of the engine.
pub(crate) fn run(adapter: &wgpu::Adapter) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    // The application's device, opened as it likes; the engine makes do with its limits and features.
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let gpu = Gpu::adopt(device.clone(), queue.clone())?;

    // Once: a graph, its weights, and the program that is prepared from both.
    let mut g = Graph::new();
    let x = g.input("x", SHAPE, DType::F32)?;
    let weight = g.parameter("weight", [SHAPE[1], OUT], DType::F32)?;
    let hidden = ops::linear(&mut g, x, weight, None, WeightLayout::InOut)?;
    let out = ops::activation(&mut g, hidden, Activation::GeluTanh)?;
    g.output("out", out)?;
    let weights = Weights::for_graph(&gpu, &g, "flat")?;
    let values: Vec<f32> = (0..SHAPE[1] * OUT).map(weight_value).collect();
    weights.upload("weight", bytemuck::cast_slice(&values))?;
    let program = Program::new(&gpu, &g, &weights)?;

    // Each frame: one encoder for the application's passes and the engine's.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let (input, offset, size) = program.input_buffer("x")?;
    let wave = application_pass(&device, "wave", input, offset, size);
    let (output, offset, size) = program.output_buffer("out")?;
    let negate = application_pass(&device, "negate", output, offset, size);
    wave(&mut encoder);
    program.encode(&mut encoder)?;
    negate(&mut encoder);
    let bytes = program.readback(&mut encoder, "out")?;
    queue.submit([encoder.finish()]);
    Ok(bytemuck::pod_collect_to_vec(&bytes.wait()?))
}

/// The weights of the example: small, and different from each other.
#[must_use]
pub(crate) fn weight_value(index: usize) -> f32 {
    (index as f32 * 0.37).cos() * 0.2
}

/// A pass of the application over a range of a buffer, with a pipeline of its own.
fn application_pass(
    device: &wgpu::Device,
    entry: &str,
    buffer: &wgpu::Buffer,
    offset: u64,
    size: u64,
) -> impl Fn(&mut wgpu::CommandEncoder) + use<> {
    let source = wgpu::ShaderSource::Wgsl(APPLICATION.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(entry), source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: None,
        module: &module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let size = std::num::NonZeroU64::new(size);
    let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(entry),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
    });
    let groups = size.map_or(0, |s| s.get() as u32 / 4).div_ceil(64);
    move |encoder| {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
    }
}
