//! The workloads with wgformer, as an application would write them.

use crate::side::Run;
use crate::workload::{DECODED, HEAD_WIDTH, HEADS, MODEL, PROMPT, Workload, tokens, values};
use std::error::Error;
use std::ops::ControlFlow;
use std::time::Instant;
use wgformer::bench::{Step, StepKind, StepSize, gpt};
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::graph::Storage;
use wgformer::io::Config;
use wgformer::models;
use wgformer::ops::{self, AttentionOptions};
use wgformer::program::Source;
use wgformer::train::LABELS;
use wgformer::{DType, Gpu, Graph, Program, Tensor, Weights};

pub fn prepare(workload: &Workload, gpu: &Gpu) -> Result<Run, Box<dyn Error>> {
    match *workload {
        Workload::Matmul(m, k, n) => graph(gpu, move |g| {
            let (a, b) = (operand(g, "a", &[m, k])?, operand(g, "b", &[k, n])?);
            Ok(vec![ops::matmul(g, a, b)?])
        }),
        Workload::Attention { tokens, backward } => graph(gpu, move |g| attention(g, tokens, backward)),
        Workload::LayerNorm(rows, columns) => graph(gpu, move |g| {
            let x = operand(g, "x", &[rows, columns])?;
            let (gain, bias) = (operand(g, "gain", &[columns])?, operand(g, "bias", &[columns])?);
            Ok(vec![ops::layer_norm(g, x, gain, Some(bias), 1e-5)?])
        }),
        Workload::Train => step(gpu, StepKind::Train),
        Workload::Forward => step(gpu, StepKind::Forward),
        Workload::Decode => decode(gpu),
    }
}

fn operand(g: &mut Graph, name: &str, shape: &[usize]) -> wgformer::Result<Tensor> {
    g.parameter(name, shape, DType::F32)
}

fn attention(g: &mut Graph, tokens: usize, backward: bool) -> wgformer::Result<Vec<Tensor>> {
    let shape = [1, tokens, HEADS, HEAD_WIDTH];
    let [q, k, v] = [operand(g, "q", &shape)?, operand(g, "k", &shape)?, operand(g, "v", &shape)?];
    let out = ops::attention(g, q, k, v, &AttentionOptions::default().with_causal(true))?;
    if !backward {
        return Ok(vec![out]);
    }
    let upstream = operand(g, "upstream", &shape)?;
    Ok(g.differentiate_from(&[(out, upstream)], &[q, k, v])?.into_iter().flatten().collect())
}

fn graph(gpu: &Gpu, build: impl Fn(&mut Graph) -> wgformer::Result<Vec<Tensor>>) -> Result<Run, Box<dyn Error>> {
    let mut g = Graph::new();
    for (index, tensor) in build(&mut g)?.into_iter().enumerate() {
        g.output(&format!("out{index}"), tensor)?;
    }
    let weights = Weights::new(gpu);
    let program = Program::new(gpu, &g, &weights)?;
    for (seed, slot) in program.recording().slots().iter().enumerate() {
        if let Source::Parameter(name) = &slot.source {
            let bytes: Vec<u8> =
                values(slot.ty.shape.numel(), seed as u32 + 1).iter().flat_map(|v| v.to_le_bytes()).collect();
            weights.upload(name, &bytes)?;
        }
    }
    Ok(Box::new(move || {
        let start = Instant::now();
        program.run()?;
        program.gpu().wait(None)?;
        Ok(start.elapsed().as_secs_f64())
    }))
}

fn step(gpu: &Gpu, kind: StepKind) -> Result<Run, Box<dyn Error>> {
    let model = gpt(MODEL.layers, MODEL.width, MODEL.heads, MODEL.length, MODEL.vocabulary)?;
    let step =
        Step::prepare(gpu, kind, &model, &Storage::default(), StepSize { batch: MODEL.batch, length: MODEL.length })?;
    let count = MODEL.batch * MODEL.length;
    let bytes = |seed| tokens(count, seed).iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    step.program.write("input_ids", &bytes(1))?;
    if kind == StepKind::Train {
        step.program.write(LABELS, &bytes(2))?;
    }
    Ok(Box::new(move || {
        let start = Instant::now();
        step.run()?;
        Ok(start.elapsed().as_secs_f64())
    }))
}

fn decode(gpu: &Gpu) -> Result<Run, Box<dyn Error>> {
    let model = gpt(MODEL.layers, MODEL.width, MODEL.heads, MODEL.length, MODEL.vocabulary)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let limits = GenerateLimits::new(1, MODEL.length);
    let decoder = models::decoder(&Config::new("the benchmark's model", model.config())?)?;
    let mut generator = Generator::new(gpu, decoder.into(), &weights, limits)?;
    let prompt: Vec<u32> = tokens(PROMPT, 3).into_iter().map(|id| id as u32).collect();
    let options = SamplingOptions::greedy(DECODED + 1);
    Ok(Box::new(move || {
        let mut start = None;
        let answers = generator.generate(std::slice::from_ref(&prompt), &options, |_| {
            start.get_or_insert_with(Instant::now);
            ControlFlow::Continue(())
        })?;
        let seconds = start.map_or(f64::NAN, |start| start.elapsed().as_secs_f64());
        match answers[0].tokens.len() == DECODED + 1 {
            true => Ok(seconds),
            false => Err("the answer ended early".into()),
        }
    }))
}
