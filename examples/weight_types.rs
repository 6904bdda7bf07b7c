//! What each type of weights costs and changes: bits in a file, GPU memory, the speed of reading and of writing tokens, and the largest
//! error of a logit against f32; and what each type of caches changes.
//!
//! ```text
//! cargo run --release --example weight_types -- MODEL TEXT_FILE
//! ```
//! prints a table in Markdown. The text is cut to 256 tokens; 32 more are written, each the likeliest. Times are the least of two runs.

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions, TokenPick};
use wgformer::io::ModelFolder;
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::{DType, Gpu, Graph, Program, Weights, quantised};

/// Tokens that are read, and those that are written.
const READ: usize = 256;
const WRITTEN: usize = 32;
const RUNS: usize = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: weight_types MODEL TEXT_FILE".into());
    };
    let gpu = Gpu::choose(None)?;
    let folder = ModelFolder::open(&model)?;
    let mut tokens = folder.expect_tokenizer()?.encode_for_model(&std::fs::read_to_string(text)?, None)?.ids;
    if tokens.len() < READ {
        return Err(format!("the text has {} tokens, {READ} are needed", tokens.len()).into());
    }
    tokens.truncate(READ);
    println!(
        "| type | bits a weight | weights on the GPU | reading, tokens/s | writing, tokens/s | largest error of a logit |"
    );
    println!("|---|---|---|---|---|---|");
    let mut exact = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16].into_iter().chain(DType::QUANTISED) {
        let (model, weights) = models::load(&gpu, &folder, dtype)?;
        let model: Arc<dyn Decoder> = model.into();
        let bytes: u64 = model.parameters_in(weights.storage())?.iter().map(|(_, ty)| ty.bytes()).sum();
        let (logits, reading) = read(&gpu, model.as_ref(), &weights, &tokens)?;
        let writing = write(&gpu, model, &weights, &tokens)?;
        if exact.is_empty() {
            exact.clone_from(&logits);
        }
        let rate = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
        println!(
            "| {dtype} | {:.2} | {:.1} MB | {:.0} | {:.1} | {:.2} % |",
            bits(dtype),
            bytes as f64 / 1e6,
            rate(READ, reading),
            rate(WRITTEN, writing),
            100.0 * largest_error(&exact, &logits)
        );
    }
    println!();
    println!("| cache | largest error of a logit |");
    println!("|---|---|");
    let (model, weights) = models::load(&gpu, &folder, None)?;
    let mut exact = Vec::new();
    for cache in [DType::F32, DType::F16, DType::Q8_0] {
        let logits = after_cache(&gpu, model.as_ref(), &weights.share().with_cache(cache), &tokens)?;
        if exact.is_empty() {
            exact.clone_from(&logits);
        }
        println!("| {cache} | {:.3} % |", 100.0 * largest_error(&exact, &logits));
    }
    Ok(())
}

/// The largest error over the largest number.
fn largest_error(exact: &[f32], found: &[f32]) -> f32 {
    let largest = exact.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    exact.iter().zip(found).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// The logits behind the last token, where those before it are in the cache.
fn after_cache(gpu: &Gpu, model: &dyn Decoder, weights: &Weights, tokens: &[u32]) -> Result<Vec<f32>, Box<dyn Error>> {
    let (limits, pick) = (GenerateLimits::new(1, READ), TokenPick::Logits);
    let (before, last) = tokens.split_at(READ - 1);
    let storage = weights.storage();
    let prefill = Generator::prefill_graph(model, storage, limits, before.len(), pick)?;
    let prefill = Program::new(gpu, &prefill, weights)?;
    prefill.write("ids", bytemuck::cast_slice(before))?;
    prefill.write("last", bytemuck::bytes_of(&(before.len() as u32 - 1)))?;
    prefill.run()?;
    let decode = Program::new(gpu, &Generator::decode_graph(model, storage, limits, pick)?, weights)?;
    decode.write("ids", bytemuck::cast_slice(last))?;
    decode.write("positions", bytemuck::bytes_of(&(before.len() as u32)))?;
    decode.write("lengths", bytemuck::bytes_of(&(READ as u32)))?;
    decode.run()?;
    Ok(decode.read_f32("logits")?)
}

/// Bits of a weight in a file.
fn bits(dtype: DType) -> f64 {
    match quantised::file_block_bytes(dtype) {
        0 => dtype.bytes(64) as f64 / 8.0,
        bytes => 8.0 * bytes as f64 / dtype.block() as f64,
    }
}

/// The logits of all tokens, and the time of a pass.
fn read(
    gpu: &Gpu,
    model: &dyn Decoder,
    weights: &Weights,
    tokens: &[u32],
) -> Result<(Vec<f32>, Duration), Box<dyn Error>> {
    let mut g = Graph::with_storage(weights.storage());
    let ids = g.input("ids", [1, tokens.len()], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?;
    let hidden = model.decode(&mut g, &inputs)?.states;
    let logits = model.logits(&mut g, hidden)?;
    g.output("logits", logits)?;
    let program = Program::new(gpu, &g, weights)?;
    program.write("ids", bytemuck::cast_slice(tokens))?;
    let mut least = Duration::MAX;
    let mut logits = Vec::new();
    for _ in 0..=RUNS {
        let start = Instant::now();
        program.run()?;
        logits = program.read_f32("logits")?;
        least = least.min(start.elapsed());
    }
    Ok((logits, least))
}

/// The time of the tokens behind the first one.
fn write(gpu: &Gpu, model: Arc<dyn Decoder>, weights: &Weights, tokens: &[u32]) -> Result<Duration, Box<dyn Error>> {
    let limits = GenerateLimits::new(1, READ + WRITTEN + 1);
    let mut generator = Generator::new(gpu, model, weights, limits)?;
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let mut first = None;
        let options = SamplingOptions::greedy(WRITTEN + 1);
        generator.generate(&[tokens.to_vec()], &options, |_| {
            first.get_or_insert_with(Instant::now);
            ControlFlow::Continue(())
        })?;
        least = least.min(first.map_or(Duration::MAX, |first| first.elapsed()));
    }
    Ok(least)
}
