//! Mixtures of experts on every adapter of this machine: a step without work on the host, the same bits on every run, files with
//! one tensor per expert, capacity, and biases that follow the loads.

mod common;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use std::sync::Arc;
use wgformer::graph::Storage;
use wgformer::io::{Config, ModelFolder};
use wgformer::kernel::Caps;
use wgformer::models::{self, Decoder, TokenInputs};
use wgformer::ops::CrossEntropyOptions;
use wgformer::train::{
    Batches, Event, IDS, LABELS, LanguageModel, Part, RunOptions, SCALARS, Schedule, StepOptions, TrainStep, Trainer,
};
use wgformer::{DType, Gpu, Graph, Program, Recording, Result, Weights};

fn main() {
    let mut trials = vec![Trial::test("a step is recorded without knowing where tokens go", recorded_once)];
    for (name, device) in common::adapters(&mut trials) {
        let cases: [(&str, fn(&Gpu) -> std::result::Result<(), Failed>); 4] = [
            ("a step reads nothing back and is one piece of work, wherever tokens go", one_piece_of_work),
            ("experts learn, with the same bits on every run", learning),
            ("files have the experts one by one", files),
            ("an expert takes no more than its capacity in training", capacity),
        ];
        for (title, case) in cases {
            trials.push(device.trial(format!("[{name}] {title}"), case));
        }
    }
    common::run(trials);
}

fn mixtral(more: Value) -> Value {
    let mut config = json!({"model_type": "mixtral", "vocab_size": 97, "hidden_size": 35, "num_attention_heads": 5,
                            "num_key_value_heads": 1, "head_dim": 6, "num_hidden_layers": 2, "intermediate_size": 33,
                            "max_position_embeddings": 300, "num_local_experts": 7, "num_experts_per_tok": 3,
                            "router_aux_loss_coef": 0.02});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

fn objective(config: Value, rows: usize, length: usize) -> Result<LanguageModel> {
    let model = models::decoder(&Config::new("config.json", config)?)?.into();
    Ok(LanguageModel { model, rows, length, options: CrossEntropyOptions::default() })
}

fn train_graph(objective: &LanguageModel, caps: &Caps) -> Result<Graph> {
    use wgformer::train::Objective;
    let step = TrainStep::new(&objective.parameters(&Storage::default())?, caps, StepOptions::default())?;
    step.graph(Part::Whole, |g| objective.loss(g, true))
}

/// Models whose routers decide differently.
fn sparse() -> [Value; 3] {
    let mut mor = mixtral(json!({"model_type": "mor", "num_hidden_layers": 5, "num_recursions": 3}));
    if let Some(keys) = mor.as_object_mut() {
        keys.remove("num_local_experts");
    }
    let mut tokens = mor.clone();
    tokens["routing"] = "token_choice".into();
    [mixtral(json!({"expert_capacity_factor": 0.8, "router_bias_rate": 0.125})), mor, tokens]
}

/// Recording needs no device, so it cannot depend on results.
fn recorded_once() -> std::result::Result<(), Failed> {
    for config in sparse() {
        let objective = objective(config, 2, 24)?;
        let caps = Caps::baseline();
        let print = || -> Result<String> { Ok(Recording::new(&train_graph(&objective, &caps)?, &caps)?.to_string()) };
        let (first, second) = (print()?, print()?);
        if first != second || !first.contains("adamw") {
            return Err("two recordings of one step differ, or lack the update".into());
        }
    }
    Ok(())
}

/// The whole step goes into one encoder of the caller's, before anything has run: no decision can wait for a result. Submitted
/// with texts that go elsewhere, it takes one submission and no read-back each time.
fn one_piece_of_work(gpu: &Gpu) -> std::result::Result<(), Failed> {
    for config in sparse() {
        let (rows, length) = (2, 24);
        let objective = objective(config, rows, length)?;
        let weights = Weights::new(gpu);
        objective.model.initialise(&weights, 5)?;
        let graph = train_graph(&objective, gpu.caps())?;
        let program = Program::new(gpu, &graph, &weights)?;
        let mut losses = Vec::new();
        for text in [1_u32, 29] {
            let ids: Vec<u32> =
                (0..(rows * length) as u32).map(|i| if text == 1 { 3 } else { i * text % 97 }).collect();
            program.write(IDS, bytemuck::cast_slice(&ids))?;
            program.write(LABELS, bytemuck::cast_slice(&ids))?;
            let scalars = StepOptions::default().scalars(0.01).to_array();
            program.write(SCALARS, bytemuck::cast_slice(&scalars))?;
            let before = (gpu.submissions(), gpu.readbacks());
            let mut encoder = gpu.encoder("a step");
            program.encode(&mut encoder)?;
            gpu.submit("a step", [encoder])?;
            let after = (gpu.submissions(), gpu.readbacks());
            if after != (before.0 + 1, before.1) {
                return Err(format!("submissions and read-backs went from {before:?} to {after:?}").into());
            }
            losses.push(program.read("report")?);
        }
        if losses[0] == losses[1] {
            return Err("two texts gave the same report".into());
        }
    }
    Ok(())
}

fn train(gpu: &Gpu, config: &Value, steps: usize) -> Result<(Vec<f32>, Trainer)> {
    let objective = objective(config.clone(), 3, 17)?;
    let weights = Weights::new(gpu);
    objective.model.initialise(&weights, 1)?;
    let options = StepOptions::default();
    let mut trainer =
        Trainer::new(gpu, &weights, &objective, options, RunOptions::default(), Schedule::constant(0.01))?;
    let text: Arc<[u32]> = (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    let (mut data, mut losses) = (Batches::new(text, 3, 17, 2)?, Vec::new());
    for _ in 0..steps {
        trainer.submit_step(&mut data)?;
    }
    trainer.reports(0, &mut |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(step.report.loss);
        }
    })?;
    Ok((losses, trainer))
}

/// With capacity, noise and a bias at once; the bias moves in steps of its rate.
fn learning(gpu: &Gpu) -> std::result::Result<(), Failed> {
    // An odd number: the large rate overshoots, and each step undoes the one before.
    const STEPS: usize = 15;
    let config = mixtral(json!({"expert_capacity_factor": 1.25, "router_noise": true, "router_bias_rate": 0.125,
                       "router_z_loss_coef": 0.001}));
    let (losses, trainer) = train(gpu, &config, STEPS)?;
    let (again, second) = train(gpu, &config, STEPS)?;
    let bits = |trainer: &Trainer| trainer.weights().download("flat.parameters");
    if losses != again || bits(&trainer)? != bits(&second)? {
        return Err(format!("{losses:?} and {again:?}, or their weights, differ").into());
    }
    if !(losses[STEPS - 1] < 0.8 * losses[0]) {
        return Err(format!("the loss went from {} to {}", losses[0], losses[STEPS - 1]).into());
    }
    let name = "model.layers.1.block_sparse_moe.gate.e_score_correction_bias";
    let bias: Vec<f32> = bytemuck::pod_collect_to_vec(&trainer.weights().download(name)?);
    let steps = |x: &f32| (x / 0.125).fract() == 0.0 && x.abs() <= 0.125 * STEPS as f32;
    if !bias.iter().all(steps) || bias.iter().all(|x| *x == 0.0) {
        return Err(format!("the bias is {bias:?}").into());
    }
    Ok(())
}

/// Saved and loaded again, a model gives the same logits; the file has a tensor for each expert.
fn files(gpu: &Gpu) -> std::result::Result<(), Failed> {
    let model: Box<dyn Decoder> = models::decoder(&Config::new("config.json", mixtral(json!({})))?)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 3)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model");
    models::save(model.as_ref(), &weights, None, &path)?;
    let opened = ModelFolder::open(&path)?;
    let expert = opened.tensors.expect("model.layers.1.block_sparse_moe.experts.6.w2.weight")?;
    if expert.shape.dims() != [35, 33] {
        return Err(format!("an expert is {}", expert.shape).into());
    }
    let (loaded, again) = models::load(gpu, &opened, DType::F32)?;
    let logits = |model: &dyn Decoder, weights: &Weights| -> Result<Vec<u8>> {
        let mut g = Graph::new();
        let ids = g.input("ids", [1, 13], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        g.output("logits", logits)?;
        let program = Program::new(gpu, &g, weights)?;
        program.write("ids", bytemuck::cast_slice(&(0..13_u32).map(|i| i * 7 % 97).collect::<Vec<_>>()))?;
        program.run()?;
        program.read("logits")
    };
    if logits(model.as_ref(), &weights)? != logits(loaded.as_ref(), &again)? {
        return Err("the loaded model gives other logits".into());
    }
    Ok(())
}

/// Slots beyond an expert's capacity go to no expert, in training only; all others follow the gate.
fn capacity(gpu: &Gpu) -> std::result::Result<(), Failed> {
    const TOKENS: usize = 40;
    let config = mixtral(json!({"expert_capacity_factor": 0.75}));
    let (experts, k) = (7_usize, 3_usize);
    let most = (0.75 * (TOKENS * k) as f32 / experts as f32).ceil() as usize;
    let model: Box<dyn Decoder> = models::decoder(&Config::new("config.json", config)?)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 3)?;
    let chosen = |training: bool| -> Result<Vec<u32>> {
        let mut g = Graph::new();
        let ids = g.input("ids", [1, TOKENS], DType::U32)?;
        let inputs = TokenInputs { training, ..TokenInputs::new(&mut g, ids)? };
        let hidden = model.decode(&mut g, &inputs)?;
        let (_, tensor) = hidden
            .routing
            .iter()
            .find(|(name, _)| name == "experts.0")
            .ok_or_else(|| wgformer::Error::Graph("no gate".into()))?;
        g.output("chosen", *tensor)?;
        let program = Program::new(gpu, &g, &weights)?;
        program.write("ids", bytemuck::cast_slice(&(0..TOKENS as u32).map(|i| i * i % 97).collect::<Vec<_>>()))?;
        program.run()?;
        Ok(bytemuck::pod_collect_to_vec(&program.read("chosen")?))
    };
    let (free, limited) = (chosen(false)?, chosen(true)?);
    let mut taken = vec![0; experts];
    let mut expected = free.clone();
    for expert in &mut expected {
        let count = &mut taken[*expert as usize];
        *count += 1;
        if *count > most {
            *expert = experts as u32;
        }
    }
    if taken.iter().all(|count| *count <= most) {
        return Err(format!("the loads {taken:?} put no expert to its limit of {most}").into());
    }
    if limited == expected { Ok(()) } else { Err(format!("{limited:?}, expected {expected:?}").into()) }
}
