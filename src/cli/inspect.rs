//! `wgformer inspect`: what a step of a model does.

use super::args::{InspectArgs, StepKind};
use super::{model, print_json, table};
use crate::dtype::DType;
use crate::error::{Result, human_bytes};
use crate::generate::{GenerateLimits, Generator};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::io::{Config, ModelFolder};
use crate::models::{self, Decoder, Inputs};
use crate::ops::CrossEntropyOptions;
use crate::program::{MemoryReport, Plan, Profile, Program, Recording, Weights, human_count};
use crate::train::{Part, StepOptions, TrainStep};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

pub(super) fn run(options: &InspectArgs) -> Result<ExitCode> {
    let gpu = Gpu::choose(options.common.adapter.as_deref())?;
    let model = decoder(options)?;
    let graph = graph(options, &model, &gpu)?;
    let recording = Recording::new(&graph, gpu.caps())?;
    let plan = Plan::new(&recording, gpu.caps())?;
    let memory = MemoryReport::new(&recording, &plan);
    let profile = match options.profile || options.trace.is_some() {
        true => Some(measure(&gpu, &model, &recording)?),
        false => None,
    };
    if let (Some(profile), Some(path)) = (&profile, &options.trace) {
        crate::io::write_atomic(path, profile.trace().to_string().as_bytes())?;
    }
    if options.common.json {
        print_json(&json!({
            "adapter": gpu.info().name,
            "parameters": model.parameter_count()?,
            "dispatches": recording.dispatches.len(),
            "flops": recording.flops(),
            "bytes": recording.bytes(),
            "memory": memory,
            "kernels": kernels(&recording),
            "profile": profile,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let context = context(options, model.as_ref());
    println!(
        "{} parameters; a {:?} step of {} × {context} tokens on {}",
        human_count(model.parameter_count()? as u64),
        options.step,
        options.batch,
        gpu.info().name
    );
    if options.list {
        println!("{recording}");
    }
    print_kernels(&recording);
    println!("{memory}");
    if let Some(profile) = profile {
        println!("\n{profile}");
    }
    if let Some(path) = &options.trace {
        println!("trace written to {}; open it in https://ui.perfetto.dev", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn decoder(options: &InspectArgs) -> Result<Arc<dyn Decoder>> {
    let config = match &options.folder {
        Some(path) if path.is_dir() => Config::read(path.join("config.json"))?,
        Some(path) if path.extension().is_some_and(|e| e == "json") => Config::read(path)?,
        Some(path) => return file_decoder(&ModelFolder::open(path)?, options.step),
        None => model::config(&options.model, options.vocabulary, 0.0)?,
    };
    models::decoder(&config).map(Into::into)
}

/// The decoder of a GGUF file: trained in f32, run as it is in the file.
fn file_decoder(file: &ModelFolder, step: StepKind) -> Result<Arc<dyn Decoder>> {
    let storage = (step == StepKind::Train).then_some(DType::F32);
    models::decoder_of(file, storage).map(Into::into)
}

fn context(options: &InspectArgs, model: &dyn Decoder) -> usize {
    options.model.context.min(model.dimensions().positions)
}

fn graph(options: &InspectArgs, model: &Arc<dyn Decoder>, gpu: &Gpu) -> Result<Graph> {
    let (batch, context) = (options.batch, context(options, model.as_ref()));
    let loss = |g: &mut Graph| {
        let ids = g.input("ids", [batch, context], DType::U32)?;
        let labels = g.input("labels", [batch, context], DType::I32)?;
        let inputs = Inputs::new(g, ids)?;
        model.loss(g, &inputs, labels, &CrossEntropyOptions::default())
    };
    match options.step {
        StepKind::Train => {
            TrainStep::new(&model.parameters()?, gpu.caps(), StepOptions::default())?.graph(Part::Whole, loss)
        }
        StepKind::Eval => {
            let mut g = Graph::new();
            let loss = loss(&mut g)?;
            g.output("loss", loss)?;
            Ok(g)
        }
        StepKind::Decode => Generator::decode_graph(model.as_ref(), GenerateLimits { batch, max_tokens: context }),
    }
}

/// Runs the step on fresh weights and times its launches.
fn measure(gpu: &Gpu, model: &Arc<dyn Decoder>, recording: &Recording) -> Result<Profile> {
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    Program::prepare(gpu, recording.clone(), &weights)?.profile()
}

/// Launches, operations and bytes by kernel.
fn kernels(recording: &Recording) -> BTreeMap<&'static str, [u64; 3]> {
    let mut sums: BTreeMap<&'static str, [u64; 3]> = BTreeMap::new();
    for dispatch in &recording.dispatches {
        let sum = sums.entry(dispatch.kernel.name).or_default();
        sum[0] += 1;
        sum[1] += dispatch.flops;
        sum[2] += dispatch.bytes();
    }
    sums
}

fn print_kernels(recording: &Recording) {
    let mut table = table(&["kernel", "dispatches", "flop", "bytes bound"]);
    let mut rows: Vec<_> = kernels(recording).into_iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum[1]));
    for (kernel, [count, flops, bytes]) in rows {
        table.add_row([kernel.to_owned(), count.to_string(), human_count(flops), human_bytes(bytes)]);
    }
    let total =
        [recording.dispatches.len().to_string(), human_count(recording.flops()), human_bytes(recording.bytes())];
    let [count, flops, bytes] = total;
    table.add_row(["total".to_owned(), count, flops, bytes]);
    println!("{table}");
}
