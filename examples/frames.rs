//! The engine inside an application that draws frames: a run that takes longer than a frame may is encoded in pieces, one a frame, and
//! the result is picked up when it is there. The application polls the device itself.
//!
//! Run it with `cargo run --example frames`.

use std::time::Duration;
use wgformer::gpu::{GpuOptions, Polling};
use wgformer::ops;
use wgformer::program::Budget;
use wgformer::{DType, Gpu, Graph, Program, Weights};

/// Rows and columns of the matrix that is multiplied with itself, twice.
const SIZE: usize = 256;

/// How much of a frame the engine may take.
const SHARE: Duration = Duration::from_millis(2);

/// The application's work in each frame: here, counting frames.
const FRAME: &str = "
    @group(0) @binding(0) var<storage, read_write> frames: u32;
    @compute @workgroup_size(1) fn frame() { frames++; }
";

/// The result of the frames.
pub(crate) struct Shown {
    /// The frames that were drawn, as the application counted them on the device.
    pub(crate) frames: u32,
    /// The frames that carried a piece of the run.
    pub(crate) pieces: u32,
    /// The result of the run.
    pub(crate) out: Vec<f32>,
    /// The result of another run, all at once.
    pub(crate) whole: Vec<f32>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for adapter in Gpu::adapters() {
        let Shown { frames, pieces, out, whole } = run(&adapter)?;
        let same = if out == whole { "as" } else { "not as" };
        println!("{}: {pieces} pieces in {frames} frames, {same} all at once", adapter.get_info().name);
    }
    Ok(())
}

/// Draws frames on one adapter until a run of the engine is done.
///
/// # Errors
/// Those of wgpu and of the engine.
pub(crate) fn run(adapter: &wgpu::Adapter) -> Result<Shown, Box<dyn std::error::Error>> {
    // The application's device. With timestamps the engine learns how much fits into its share.
    let required_features = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
    let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let options = GpuOptions::default().with_polling(Polling::Application);
    let gpu = Gpu::adopt_with(device.clone(), queue.clone(), &options)?;

    let mut g = Graph::new();
    let x = g.input("x", [SIZE, SIZE], DType::F32)?;
    let square = ops::matmul(&mut g, x, x)?;
    let cube = ops::matmul(&mut g, square, x)?;
    g.output("out", cube)?;
    let program = Program::new(&gpu, &g, &Weights::new(&gpu))?;
    let values: Vec<f32> = (0..SIZE * SIZE).map(|i| (i as f32 * 0.37).cos()).collect();
    program.write("x", bytemuck::cast_slice(&values))?;

    let counter = gpu.buffer("frames", 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC)?;
    let draw = application_pass(&device, &counter);
    let mut pieces = program.pieces(Budget::lasting(&gpu, SHARE))?;
    let (mut encoded, mut result) = (0, None);
    let out = loop {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        draw(&mut encoder);
        if !pieces.is_done() {
            encoded += 1;
            if !pieces.encode(&mut encoder)? {
                result = Some(program.readback(&mut encoder, "out")?);
            }
        }
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::Poll)?;
        if let Some(bytes) = result.as_mut().map(wgformer::gpu::Readback::try_get).transpose()?.flatten() {
            break bytes;
        }
    };
    // All at once, for comparison: this frame would be late.
    program.run()?;
    let frames = u32::from_le_bytes(gpu.read(&counter, 0, 4)?.try_into().map_err(|_| "a word has four bytes")?);
    Ok(Shown { frames, pieces: encoded, out: bytemuck::pod_collect_to_vec(&out), whole: program.read_f32("out")? })
}

/// The pass of a frame, over a buffer.
fn application_pass(device: &wgpu::Device, buffer: &wgpu::Buffer) -> impl Fn(&mut wgpu::CommandEncoder) + use<> {
    let source = wgpu::ShaderSource::Wgsl(FRAME.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("frame"), source });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("frame"),
        layout: None,
        module: &module,
        entry_point: Some("frame"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("frame"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[wgpu::BindGroupEntry { binding: 0, resource: buffer.as_entire_binding() }],
    });
    move |encoder| {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
}
