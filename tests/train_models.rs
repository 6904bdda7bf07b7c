//! Training whole language models on every adapter of this machine: recomputation, half-precision storage, resuming.

mod common;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::sync::Arc;
use wgformer::graph::Storage;
use wgformer::io::{Checkpoints, Config};
use wgformer::kernel::Caps;
use wgformer::models;
use wgformer::ops::CrossEntropyOptions;
use wgformer::program::Plan;
use wgformer::train::{
    BatchSource, Batches, Event, LanguageModel, LossScaling, Objective, Part, RunOptions, Schedule, StepOptions,
    TrainStep, Trainer,
};
use wgformer::{DType, Gpu, Recording, Result, Weights};

const ROWS: usize = 3;
const LENGTH: usize = 17;

fn main() {
    let mut trials = vec![Trial::test("GPT-2 trains within the least limits of WebGPU", gpt2_fits_the_least_limits)];
    for (name, device) in common::adapters_also_as_gpus(&mut trials) {
        type Test = fn(&Gpu) -> Result<(), Failed>;
        let tests: [(&str, Test); 4] = [
            ("recomputed blocks give the same bits", recomputed_blocks_give_the_same_bits),
            ("half-precision weights learn", half_precision_weights_learn),
            ("a resumed run is the same run", a_resumed_run_is_the_same_run),
            ("a llama learns in micro-batches", a_llama_learns_in_micro_batches),
        ];
        trials.extend(tests.map(|(title, test)| device.trial(format!("[{name}] {title}"), test)));
    }
    common::run(trials);
}

fn gpt2(layers: usize) -> Value {
    json!({"model_type": "gpt2", "vocab_size": 97, "n_embd": 35, "n_head": 5, "n_layer": layers, "n_positions": 64,
           "resid_pdrop": 0.1, "embd_pdrop": 0.1})
}

fn llama() -> Value {
    json!({"model_type": "llama", "vocab_size": 89, "hidden_size": 36, "num_attention_heads": 6,
           "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 50, "rms_norm_eps": 1e-5,
           "max_position_embeddings": 64})
}

fn objective(config: &Value) -> Result<LanguageModel> {
    let model = models::decoder(&Config::new("config.json", config.clone())?)?;
    let options = CrossEntropyOptions::default();
    Ok(LanguageModel { model: Arc::from(model), rows: ROWS, length: LENGTH, options })
}

fn trainer(gpu: &Gpu, objective: &LanguageModel, storage: DType, options: StepOptions) -> Result<Trainer> {
    let weights = Weights::stored_as(gpu, storage);
    objective.model.initialise(&weights, 1)?;
    let run = RunOptions { seed: 9, ..RunOptions::default() };
    Trainer::new(gpu, &weights, objective, options, run, Schedule::constant(0.01))
}

/// A text of a few words over and over.
fn text() -> Arc<[u32]> {
    (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect()
}

fn losses(trainer: &mut Trainer, data: &mut Batches, steps: usize) -> Result<Vec<f32>> {
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    };
    for _ in 0..steps {
        trainer.submit_step(data)?;
        trainer.reports(3, &mut note)?;
    }
    trainer.reports(0, &mut note)?;
    Ok(losses)
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn recomputed_blocks_give_the_same_bits(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&gpt2(4))?;
    let run = |recompute: bool| -> Result<_> {
        let mut trainer = trainer(gpu, &objective, DType::F32, StepOptions { recompute, ..StepOptions::default() })?;
        let losses = losses(&mut trainer, &mut Batches::new(text(), ROWS, LENGTH, 2)?, 3)?;
        let dispatches = trainer.program().recording().dispatches().len();
        Ok((losses, trainer.weights().download("flat.parameters")?, dispatches))
    };
    let (plain, again) = (run(false)?, run(true)?);
    ensure(again.2 > plain.2, format!("{} dispatches and {}", plain.2, again.2))?;
    ensure(plain.0 == again.0, format!("{:?} and {:?}", plain.0, again.0))?;
    ensure(plain.1 == again.1, "weights differ")
}

/// The table of 50,257 tokens is larger than one binding may be.
fn gpt2_fits_the_least_limits() -> Result<(), Failed> {
    let caps = Caps::baseline();
    let config = json!({"model_type": "gpt2", "vocab_size": 50257, "n_embd": 768, "n_head": 12, "n_layer": 12,
                        "n_positions": 1024});
    let small = objective(&config)?;
    let objective = LanguageModel { rows: 4, length: 512, ..small };
    let bytes = |recompute: bool| -> Result<u64> {
        let options = StepOptions { recompute, ..StepOptions::default() };
        let step = TrainStep::new(&objective.parameters(&Storage::default())?, &caps, options)?;
        let graph = step.graph(Part::Whole, |g| objective.loss(g, true))?;
        Ok(Plan::new(&Recording::new(&graph, &caps)?, &caps)?.peak())
    };
    let (plain, again) = (bytes(false)?, bytes(true)?);
    ensure(again * 2 < plain, format!("{plain} bytes of activations, {again} with recomputation"))
}

fn half_precision_weights_learn(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&gpt2(1))?;
    let options = StepOptions { loss_scaling: Some(LossScaling::default()), ..StepOptions::default() };
    let mut trainer = trainer(gpu, &objective, DType::F16, options)?;
    let losses = losses(&mut trainer, &mut Batches::new(text(), ROWS, LENGTH, 2)?, 30)?;
    ensure(losses[29] < 0.6 * losses[0], format!("from {} to {}", losses[0], losses[29]))
}

fn a_resumed_run_is_the_same_run(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&gpt2(2))?;
    let new = || trainer(gpu, &objective, DType::F32, StepOptions::default());
    let mut through = new()?;
    let whole = losses(&mut through, &mut Batches::new(text(), ROWS, LENGTH, 2)?, 6)?;
    let folder = tempfile::tempdir()?;
    let checkpoints = Checkpoints::new(folder.path(), 1);
    let mut data = Batches::new(text(), ROWS, LENGTH, 2)?;
    let mut killed = new()?;
    losses(&mut killed, &mut data, 3)?;
    killed.save(&checkpoints, &data.position(), &[])?;
    drop(killed);
    let loaded = checkpoints.latest()?.ok_or("no checkpoint")?;
    let mut resumed = new()?;
    let position = serde_json::from_value(resumed.resume(&loaded)?)?;
    let rest = losses(&mut resumed, &mut Batches::resume(text(), ROWS, LENGTH, position)?, 3)?;
    ensure(whole[3..] == rest, format!("{:?} and {rest:?}", &whole[3..]))?;
    for name in ["flat.parameters", "flat.first_moment", "flat.second_moment", "optimizer.state"] {
        let (a, b) = (through.weights().download(name)?, resumed.weights().download(name)?);
        ensure(a == b, format!("{name} differs"))?;
    }
    Ok(())
}

fn a_llama_learns_in_micro_batches(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&llama())?;
    let mut trainer = trainer(gpu, &objective, DType::F32, StepOptions { accumulation: 2, ..StepOptions::default() })?;
    let losses = losses(&mut trainer, &mut Batches::new(text(), ROWS, LENGTH, 2)?, 20)?;
    ensure(losses[19] < 0.5 * losses[0], format!("from {} to {}", losses[0], losses[19]))
}
