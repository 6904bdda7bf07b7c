//! Training whole language models on every adapter of this machine: recomputation, half-precision storage, resuming.

mod common;
#[path = "common/losses.rs"]
mod losses;

use libtest_mimic::{Failed, Trial};
use losses::losses;
use serde_json::{Value, json};
use std::sync::Arc;
use wgformer::gpu::GpuOptions;
use wgformer::graph::{Array, Graph, Storage, Values};
use wgformer::io::{Checkpoints, Config};
use wgformer::kernel::Caps;
use wgformer::models;
use wgformer::ops::CrossEntropyOptions;
use wgformer::program::{Plan, Program};
use wgformer::tasks::{TaskObjective, task_of};
use wgformer::train::{
    BatchSource, Batches, Feeds, LanguageModel, LossScaling, Objective, Part, RunOptions, Schedule, StepOptions,
    TrainStep, Trainer,
};
use wgformer::{DType, Gpu, Recording, Result, Weights};

const ROWS: usize = 3;
const LENGTH: usize = 17;

fn main() {
    let mut trials = vec![Trial::test("GPT-2 trains within the least limits of WebGPU", gpt2_fits_the_least_limits)];
    trials.push(Trial::test("mT5's vocabulary trains within the default limits of WebGPU", a_large_vocabulary_trains));
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
    let run = RunOptions::default().with_seed(9);
    Trainer::new(gpu, &weights, objective, options, run, Schedule::constant(0.01))
}

/// A text of a few words over and over.
fn text() -> Arc<[u32]> {
    (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect()
}

fn ensure(holds: bool, what: impl Into<String>) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what.into().into()) }
}

fn recomputed_blocks_give_the_same_bits(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&gpt2(4))?;
    let run = |recompute: bool| -> Result<_> {
        let mut trainer = trainer(gpu, &objective, DType::F32, StepOptions::default().with_recompute(recompute))?;
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
        let options = StepOptions::default().with_recompute(recompute);
        let step = TrainStep::new(&objective.parameters(&Storage::default())?, &caps, options)?;
        let graph = step.graph(Part::Whole, |g| objective.loss(g, true))?;
        Ok(Plan::new(&Recording::new(&graph, &caps)?, &caps)?.peak())
    };
    let (plain, again) = (bytes(false)?, bytes(true)?);
    ensure(again * 2 < plain, format!("{plain} bytes of activations, {again} with recomputation"))
}

fn half_precision_weights_learn(gpu: &Gpu) -> Result<(), Failed> {
    let objective = objective(&gpt2(1))?;
    let options = StepOptions::default().with_loss_scaling(LossScaling::default());
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
    let mut trainer = trainer(gpu, &objective, DType::F32, StepOptions::default().with_accumulation(2))?;
    let losses = losses(&mut trainer, &mut Batches::new(text(), ROWS, LENGTH, 2)?, 20)?;
    ensure(losses[19] < 0.5 * losses[0], format!("from {} to {}", losses[0], losses[19]))
}

/// A token of a text over a vocabulary of 250,112.
fn token(i: usize) -> u32 {
    (i % 23 * 10_859 + 7) as u32
}

/// Inputs of an encoder-decoder that reads and says so many tokens.
fn sequence(read: usize, said: usize) -> Vec<(&'static str, Vec<u32>)> {
    let ids = |first: usize, count: usize| (first..first + count).map(token).collect::<Vec<u32>>();
    let shifted = std::iter::once(0).chain(ids(read, said - 1)).collect();
    vec![("input_ids", ids(0, read)), ("labels", ids(read, said)), ("decoder_input_ids", shifted)]
}

/// An embedding table and a head of 250,112 tokens: each is half a binding, and weights, gradients, moments and logits are larger than one.
fn a_large_vocabulary_trains() -> Result<(), Failed> {
    let config = json!({"model_type": "mt5", "vocab_size": 250_112, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4, "num_layers": 1,
                        "num_decoder_layers": 1, "dropout_rate": 0.0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false});
    let model: Arc<dyn models::Model> = models::model(&Config::new("config.json", config)?)?.into();
    let adapters = Gpu::adapters();
    let adapter = adapters.iter().find(|adapter| adapter.get_info().name.starts_with("llvmpipe")).or(adapters.first());
    let gpu = Gpu::open_with(adapter.ok_or("no adapter")?, &GpuOptions::portable())?;
    ensure(gpu.caps().max_binding_bytes <= 128 << 20, "bindings are larger than WebGPU's default")?;
    let objective = |read: usize, said: usize| -> Result<TaskObjective> {
        let shapes = vec![("input_ids".into(), [1, read].into()), ("labels".into(), [1, said].into())];
        Ok(TaskObjective { model: model.clone(), task: task_of(model.as_ref())?, shapes, label_smoothing: 0.0 })
    };
    let (weights, mut values) = (Weights::new(&gpu), Values::new());
    for (name, ty) in model.parameters()? {
        // Numbers that are quick to make: there are 32 million.
        let word = |i: usize| (i as u32 ^ name.len() as u32).wrapping_mul(0x9e37_79b1) >> 16;
        let numbers: Vec<f32> = (0..ty.shape.numel()).map(|i| word(i) as f32 / 65536.0 - 0.5).collect();
        weights.ensure(&name, &ty)?;
        weights.upload(&name, bytemuck::cast_slice(&numbers))?;
        values.insert(name, Array::new(ty.shape, numbers.into_iter().map(f64::from).collect())?);
    }
    // The loss of few tokens is that of the f64 twin.
    let mut g = Graph::new();
    let loss = objective(2, 3)?.loss(&mut g, false)?;
    g.output("loss", loss)?;
    let program = Program::new(&gpu, &g, &weights)?;
    for (name, words) in sequence(2, 3) {
        program.write(name, bytemuck::cast_slice(&words))?;
        let data: Vec<f64> = words.iter().map(|&word| f64::from(word)).collect();
        values.insert(name.into(), Array::new([1, data.len()], data)?);
    }
    program.run()?;
    let (found, twin) = (f64::from(program.read_f32("loss")?[0]), g.evaluate(&values, &[loss])?[0].data[0]);
    ensure((found - twin).abs() <= 1e-5 * twin, format!("{found}, twin {twin}"))?;
    drop((program, values));
    // The logits of these 24 tokens are not stored, and their loss falls.
    let run = RunOptions::default().with_seed(9);
    let options = StepOptions::default();
    let mut trainer = Trainer::new(&gpu, &weights, &objective(4, 24)?, options.clone(), run, Schedule::constant(0.01))?;
    let losses = losses(&mut trainer, &mut Same(sequence(4, 24)), 2)?;
    ensure(losses[1] < losses[0] - 0.3, format!("{losses:?}"))?;
    // The logits of 512 tokens would be four times as large as a binding.
    let many = objective(512, 512)?;
    let step = TrainStep::new(&many.parameters(&Storage::default())?, gpu.caps(), options)?;
    let recording = Recording::new(&step.graph(Part::Whole, |g| many.loss(g, true))?, gpu.caps())?;
    let bindings = recording.dispatches().iter().flat_map(|dispatch| &dispatch.bindings);
    let largest = bindings.map(|binding| binding.view.bytes()).max().unwrap_or(0);
    ensure((64 << 20..=128 << 20).contains(&largest), format!("a binding of {largest} bytes"))
}

/// The same batch again and again.
struct Same(Vec<(&'static str, Vec<u32>)>);

impl BatchSource for Same {
    fn next_feeds(&mut self) -> Result<Feeds> {
        Ok(self.0.iter().map(|(name, words)| ((*name).into(), bytemuck::cast_slice(words).to_vec())).collect())
    }

    fn position(&self) -> Value {
        Value::Null
    }

    fn tokens(&self) -> u64 {
        self.0.iter().map(|(_, words)| words.len() as u64).sum()
    }
}
