//! The engine inside an application that draws frames, which polls the device itself. A run that takes longer than a frame may is encoded in
//! pieces, one a frame, into the application's own encoders; and a model is prepared and generates tokens within a share of each frame, at 60
//! frames a second, whose times are measured with and without.
//!
//! Run it with `cargo run --example frames`.

use futures::StreamExt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::gpu::{GpuOptions, Polling};
use wgformer::io::Config;
use wgformer::program::Budget;
use wgformer::{DType, Gpu, Graph, Program, Weights};
use wgformer::{models, ops};

/// Rows and columns of the matrix that is multiplied with itself, twice.
const SIZE: usize = 256;

/// How much of a frame the engine may take.
const SHARE: Duration = Duration::from_millis(3);

/// The time from one frame to the next.
const PERIOD: Duration = Duration::from_micros(16_667);

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

/// Times of frames in milliseconds, sorted.
#[derive(Debug)]
pub(crate) struct Times {
    /// The engine does nothing.
    pub(crate) without: Vec<f64>,
    /// It generates tokens.
    pub(crate) with: Vec<f64>,
    /// How many tokens came, and the first of them.
    pub(crate) tokens: usize,
    pub(crate) first: Vec<u32>,
    /// Frames in which the kernels were compiled.
    pub(crate) preparing: usize,
}

/// The time that a share of the frames is within.
pub(crate) fn percentile(times: &[f64], share: f64) -> f64 {
    times.get(((times.len() as f64 - 1.0) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for adapter in Gpu::adapters() {
        let Times { without, with, tokens, first, preparing } = generate(&adapter, 120)?;
        let said =
            |times: &[f64]| format!("{:.1} ms, 95 % within {:.1}", percentile(times, 0.5), percentile(times, 0.95));
        println!("{}: frames of {}; with {tokens} tokens {}", adapter.get_info().name, said(&without), said(&with));
        println!("  prepared in {preparing} frames; the first answer: {first:?}");
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
    let gpu = adopted(adapter)?;
    let (device, queue) = (gpu.device(), gpu.queue());
    let mut g = Graph::new();
    let x = g.input("x", [SIZE, SIZE], DType::F32)?;
    let square = ops::matmul(&mut g, x, x)?;
    let cube = ops::matmul(&mut g, square, x)?;
    g.output("out", cube)?;
    let program = Program::new(&gpu, &g, &Weights::new(&gpu))?;
    let values: Vec<f32> = (0..SIZE * SIZE).map(|i| (i as f32 * 0.37).cos()).collect();
    program.write("x", bytemuck::cast_slice(&values))?;

    let counter = gpu.buffer("frames", 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC)?;
    let draw = application_pass(device, &counter);
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

/// The application's device, which it polls itself. With timestamps the engine learns how much fits into its share.
fn adopted(adapter: &wgpu::Adapter) -> Result<Gpu, Box<dyn std::error::Error>> {
    let required_features = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
    let descriptor = wgpu::DeviceDescriptor { required_features, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let options = GpuOptions::default().with_polling(Polling::Application);
    Ok(Gpu::adopt_with(device, queue, &options)?)
}

/// Draws so many frames with and without a model that generates.
///
/// # Errors
/// Those of wgpu and of the engine.
pub(crate) fn generate(adapter: &wgpu::Adapter, frames: usize) -> Result<Times, Box<dyn std::error::Error>> {
    let gpu = adopted(adapter)?;
    let counter = gpu.buffer("frames", 4, wgpu::BufferUsages::STORAGE)?;
    let draw = application_pass(gpu.device(), &counter);
    let config = serde_json::json!({"model_type": "gpt2", "vocab_size": 97, "n_embd": 64, "n_head": 4, "n_layer": 2,
        "n_positions": 64});
    let model: std::sync::Arc<dyn models::Decoder> = models::decoder(&Config::new("config.json", config)?)?.into();
    let weights = Weights::new(&gpu);
    model.initialise(&weights, 0)?;
    let mut generator = Generator::new(&gpu, model, &weights, GenerateLimits::new(1, 64))?;
    let options = SamplingOptions::default().with_max_new_tokens(40).with_temperature(0.0);

    let without = draw_frames(&gpu, &draw, std::future::pending::<()>(), frames)?.0;
    let preparation = generator.prepare_async(8, &options, |_| ());
    let (times, prepared) = draw_frames(&gpu, &draw, preparation, usize::MAX)?;
    prepared.transpose()?;
    let mut tokens = Vec::new();
    let answers = async {
        while tokens.len() < usize::MAX {
            let mut stream = generator.stream(&[vec![1, 2, 3]], &options)?;
            while let Some(token) = stream.next().await {
                tokens.push(token?.id);
            }
        }
        Ok::<(), wgformer::Error>(())
    };
    let (with, failed) = draw_frames(&gpu, &draw, answers, frames)?;
    failed.transpose()?;
    let (count, first) = (tokens.len(), tokens.into_iter().take(40).collect());
    Ok(Times { without, with, tokens: count, first, preparing: times.len() })
}

/// Draws up to so many frames, and fewer if the engine's task is done before. Returns their sorted times, and what the task gave.
fn draw_frames<T>(
    gpu: &Gpu,
    draw: &impl Fn(&mut wgpu::CommandEncoder),
    task: impl Future<Output = T>,
    frames: usize,
) -> Result<(Vec<f64>, Option<T>), Box<dyn std::error::Error>> {
    let (mut task, mut done, mut times) = (pin!(task), None, Vec::new());
    let mut begun = Instant::now();
    while times.len() < frames && done.is_none() {
        gpu.begin_frame(SHARE)?;
        if let Poll::Ready(gave) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            done = Some(gave);
        }
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        draw(&mut encoder);
        let submission_index = Some(gpu.queue().submit([encoder.finish()]));
        // A window would present the frame; here it is waited for.
        gpu.device().poll(wgpu::PollType::Wait { submission_index, timeout: None })?;
        std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        begun = Instant::now();
    }
    gpu.end_frames();
    times.sort_by(f64::total_cmp);
    Ok((times, done))
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
