//! A GPT's training step on the best adapter: the CPU's share (encoding and submitting, per dispatch) and the whole step.
//!
//! The CPU's share is the calling thread's CPU time, because drivers that compute on the CPU take the cores away from it. It is
//! taken twice: with every kernel reading from buffers, as on a GPU, and as the adapter does it; the copies into textures that
//! drivers on the CPU get count as dispatches. Encoding alone is what remains when the caches are warm, since nothing is
//! computed in between.
//!
//! Run it with `cargo bench --bench step`; `WGFORMER_ADAPTER` chooses the adapter.

#![expect(clippy::expect_used, reason = "a bench that cannot run should say so and stop")]

use cpu_time::ThreadTime;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;
use wgformer::gpu::GpuOptions;
use wgformer::graph::Storage;
use wgformer::io::Config;
use wgformer::ops::CrossEntropyOptions;
use wgformer::program::{Budget, Recording};
use wgformer::software::{Options, Staging};
use wgformer::train::{IDS, LABELS, LanguageModel, Objective, Part, StepOptions, TrainStep};
use wgformer::{Gpu, Program, Weights, models};

/// As in the `wgformer` command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 4;
const LENGTH: usize = 64;

fn program(gpu: &Gpu) -> wgformer::Result<Program> {
    let config = serde_json::json!({
        "model_type": "gpt2", "vocab_size": 65, "n_positions": LENGTH, "n_embd": 64, "n_layer": 4, "n_head": 4,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
    });
    let model: Arc<dyn models::Decoder> = models::decoder(&Config::new("bench", config)?)?.into();
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let objective = LanguageModel { model, rows: ROWS, length: LENGTH, options: CrossEntropyOptions::default() };
    let options = StepOptions::default();
    let scalars = options.scalars(1e-3).to_array();
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, gpu.caps(), options)?;
    step.layout().move_into_flat(&weights)?;
    let graph = step.graph(Part::Whole, |g| objective.loss_and_stats(g))?;
    // One submission, so that encoding is not mixed with waiting.
    let program = Program::prepare_within(gpu, Recording::new(&graph, gpu.caps())?, &weights, Budget::of(1e15))?;
    let ids: Vec<u32> = (0..(ROWS * LENGTH) as u32).map(|i| i * 7 % 65).collect();
    program.write(IDS, bytemuck::cast_slice(&ids))?;
    program.write(LABELS, bytemuck::cast_slice(&ids))?;
    program.write(wgformer::train::SCALARS, bytemuck::cast_slice(&scalars))?;
    program.run()?;
    gpu.wait(None)?;
    Ok(program)
}

fn benches(c: &mut Criterion) {
    let buffers = GpuOptions::default().with_software(Options::default().with_texture_work(u64::MAX));
    for (how, options) in [("from buffers", buffers), ("as the adapter does it", GpuOptions::default())] {
        let gpu = Gpu::choose_with(None, &options).expect("an adapter");
        let program = program(&gpu).expect("the program");
        let dispatches = program.recording().dispatches().len();
        let stages = Staging::new(program.recording()).stages;
        let copies = stages.iter().flatten().filter(|stage| stage.copy).count();
        let name = format!("GPT training step {how}, {dispatches} dispatches, {copies} copies, {}", gpu.info().name);
        step(c.benchmark_group(name), &gpu, &program, (dispatches + copies) as u64);
    }
}

fn step(mut group: BenchmarkGroup<'_, WallTime>, gpu: &Gpu, program: &Program, commands: u64) {
    group.sample_size(20).throughput(Throughput::Elements(commands));
    group.bench_function("CPU time to encode", |b| {
        b.iter(|| {
            let mut encoder = gpu.encoder("step");
            program.encode(&mut encoder).expect("commands");
            encoder.finish()
        });
    });
    group.bench_function("CPU time to encode and submit", |b| {
        b.iter_custom(|count| {
            let mut busy = Duration::ZERO;
            for _ in 0..count {
                let start = ThreadTime::now();
                program.run().expect("a run");
                busy += start.elapsed();
                gpu.wait(None).expect("the GPU");
            }
            busy
        });
    });
    group.throughput(Throughput::Elements((ROWS * LENGTH) as u64));
    group.bench_function("whole step, tokens by its rate", |b| {
        b.iter(|| {
            program.run().expect("a run");
            gpu.wait(None).expect("the GPU");
        });
    });
    group.finish();
}

criterion_group!(steps, benches);
criterion_main!(steps);
