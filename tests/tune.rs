//! The tuner on every adapter of this machine: its time is bounded, its choices are legal and saved, and damaged files are ignored.

mod common;

use libtest_mimic::Failed;
use std::time::{Duration, Instant};
use wgformer::gpu::{TunedVariants, Tuning};
use wgformer::io::{load_pipelines, load_tuning, pipelines_file, save_pipelines, save_tuning, tuning_file};
use wgformer::ops::{self, AttentionOptions};
use wgformer::{DType, Gpu, Graph, Program, Recording, Result, Weights};

type Check = fn(&Gpu) -> Result<(), Failed>;

const CHECKS: &[(&str, Check)] = &[
    ("choices are kept, and foreign or damaged files are ignored", choices_are_kept),
    ("pipelines are kept, and a damaged file is ignored", pipelines_are_kept),
    ("a tuned program computes the same", a_tuned_program_computes_the_same),
    ("without a budget nothing is chosen", without_a_budget_nothing_is_chosen),
];

fn main() {
    let mut trials = Vec::new();
    for (adapter, device) in common::adapters(&mut trials) {
        for &(name, check) in CHECKS {
            trials.push(device.trial(format!("[{adapter}] {name}"), check));
        }
    }
    common::run(trials);
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

/// An untuned device of the same adapter.
fn fresh(gpu: &Gpu) -> Result<Gpu, Failed> {
    Ok(Gpu::adopt(gpu.device().clone(), gpu.queue().clone())?)
}

/// `attention(x w) w`, and the gradient of `w`.
fn graph() -> Result<Graph> {
    let mut g = Graph::new();
    let x = g.parameter("x", [1, 65, 64], DType::F32)?;
    let w = g.parameter("w", [64, 64], DType::F32)?;
    let h = ops::matmul(&mut g, x, w)?;
    let heads = ops::reshape(&mut g, h, [1, 65, 4, 16])?;
    let options = AttentionOptions::default().with_causal(true);
    let out = ops::attention(&mut g, heads, heads, heads, &options)?;
    let out = ops::reshape(&mut g, out, [1, 65, 64])?;
    let out = ops::matmul(&mut g, out, w)?;
    let loss = ops::mean(&mut g, out)?;
    let gradients = g.differentiate(loss, &[w])?;
    g.output("out", out)?;
    for gradient in gradients.into_iter().flatten() {
        g.output("dw", gradient)?;
    }
    Ok(g)
}

fn weights(gpu: &Gpu, graph: &Graph) -> Result<Weights> {
    let weights = Weights::new(gpu);
    for (name, tensor) in graph.parameters() {
        weights.ensure(name, graph.ty(tensor))?;
        let count = graph.shape(tensor).numel();
        let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + name.len()) % 1013) as f32 / 2026.0 - 0.25).collect();
        weights.upload(name, bytemuck::cast_slice(&values))?;
    }
    Ok(weights)
}

fn choices_are_kept(gpu: &Gpu) -> Result<(), Failed> {
    let (gpu, folder, graph) = (fresh(gpu)?, tempfile::tempdir()?, graph()?);
    ensure(load_tuning(folder.path(), &gpu)? == 0, "choices came from nowhere")?;
    save_tuning(folder.path(), &gpu)?;
    ensure(!tuning_file(folder.path(), &gpu)?.exists(), "a file without a choice was written")?;
    gpu.tune(Tuning::Within(Duration::from_secs(12)));
    Program::new(&gpu, &graph, &weights(&gpu, &graph)?)?;
    let choices = gpu.tuned_variants();
    let problems: Vec<&str> = choices.iter().map(|(problem, _)| problem).collect();
    let ours = |problem: &&str| problem.starts_with("matmul") || problem.starts_with("attention");
    ensure(!problems.is_empty() && problems.iter().all(ours), format!("{problems:?}"))?;
    save_tuning(folder.path(), &gpu)?;

    let other = fresh(&gpu)?;
    ensure(load_tuning(folder.path(), &other)? == choices.len(), "not all choices were read")?;
    ensure(other.tuned_variants() == choices, "other choices were read")?;
    let recording = Recording::with_variants(&graph, gpu.caps(), &choices)?;
    let program = Program::new(&other, &graph, &weights(&other, &graph)?)?;
    ensure(program.recording().to_string() == recording.to_string(), "the choices are not followed")?;

    let path = tuning_file(folder.path(), &gpu)?;
    let text = std::fs::read_to_string(&path)?;
    for damaged in
        ["", "{", "[]", "{\"scope\": 1}", &text.replace("wgpu", "w").replace(env!("CARGO_PKG_VERSION"), "0.0.0")]
    {
        std::fs::write(&path, damaged)?;
        let other = fresh(&gpu)?;
        ensure(load_tuning(folder.path(), &other)? == 0, format!("choices came from {damaged:?}"))?;
    }
    Ok(())
}

fn pipelines_are_kept(gpu: &Gpu) -> Result<(), Failed> {
    let (gpu, folder, graph) = (fresh(gpu)?, tempfile::tempdir()?, graph()?);
    let run = |gpu: &Gpu| -> Result<Vec<f32>> {
        let program = Program::new(gpu, &graph, &weights(gpu, &graph)?)?;
        program.run()?;
        program.read_f32("out")
    };
    let caches = gpu.device().features().contains(wgpu::Features::PIPELINE_CACHE);
    ensure(load_pipelines(folder.path(), &gpu)? == caches, "the answer is not the device's")?;
    let wanted = run(&gpu)?;
    save_pipelines(folder.path(), &gpu)?;
    let path = pipelines_file(folder.path(), &gpu)?;
    ensure(path.exists() == caches, "kept, or not, as the device should not")?;
    for damage in [false, true] {
        if damage && caches {
            let mut bytes = std::fs::read(&path)?;
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(&path, bytes)?;
        }
        let other = fresh(&gpu)?;
        load_pipelines(folder.path(), &other)?;
        ensure(run(&other)? == wanted, "other results with kept pipelines")?;
    }
    Ok(())
}

fn a_tuned_program_computes_the_same(gpu: &Gpu) -> Result<(), Failed> {
    let graph = graph()?;
    let run = |gpu: &Gpu| -> Result<Vec<Vec<f32>>> {
        let program = Program::new(gpu, &graph, &weights(gpu, &graph)?)?;
        program.fill_temporaries(f32::NAN.to_bits())?;
        program.run()?;
        Ok(vec![program.read_f32("out")?, program.read_f32("dw")?])
    };
    let wanted = run(&fresh(gpu)?)?;
    // All variants, not only the winners. Illegal ones are not used.
    let variants: [[&str; 2]; 6] = [
        ["Tile64", "Rows"],
        ["Tile32", "Tile"],
        ["Registers", "Shuffle"],
        ["Subgroup4", "Rows"],
        ["Subgroup8", "Tile"],
        ["?", ""],
    ];
    let default = Recording::new(&graph, gpu.caps())?.to_string();
    let mut different = 0;
    for [product, attention] in variants {
        let mut forced = TunedVariants::default();
        for form in ["Nn 1x65x64x64", "Nt 1x65x64x64", "Tn 1x64x64x65"] {
            forced.insert(format!("matmul {form} f32"), product);
        }
        for op in ["attention", "attention_grad_q", "attention_grad_kv"] {
            forced.insert(format!("{op} 1x65x65 heads 4/4x16 causal"), attention);
        }
        let other = fresh(gpu)?;
        other.use_variants(forced);
        different += usize::from(Program::record(&other, &graph)?.to_string() != default);
        for (got, wanted) in run(&other)?.iter().zip(&wanted) {
            let largest = wanted.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let error =
                got.iter().zip(wanted).fold(0.0_f32, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
            ensure(error <= 1e-5 * largest, format!("{product}: error {error} of {largest}"))?;
        }
    }
    ensure(different >= 3, format!("only {different} of the variants changed the recording"))
}

fn without_a_budget_nothing_is_chosen(gpu: &Gpu) -> Result<(), Failed> {
    let (gpu, graph) = (fresh(gpu)?, graph()?);
    Program::new(&gpu, &graph, &weights(&gpu, &graph)?)?;
    ensure(gpu.tuned_variants().is_empty(), "chosen without tuning")?;
    gpu.tune(Tuning::Within(Duration::ZERO));
    let start = Instant::now();
    Program::new(&gpu, &graph, &weights(&gpu, &graph)?)?;
    ensure(gpu.tuned_variants().is_empty(), "chosen without time")?;
    ensure(start.elapsed() < Duration::from_secs(60), "no budget, and yet it took long")
}
