//! Mixtures of recursions on every adapter of this machine: decoding against reading, weights that are one, what a
//! recursion costs.

mod common;
#[path = "common/models.rs"]
mod small;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use small::{decoder, merged, upload, weights_of};
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, Generator};
use wgformer::graph::{Array, Values};
use wgformer::io::{Checkpoints, Config, ModelFolder};
use wgformer::kernel::Caps;
use wgformer::models::{self, Decoder, LayerInit, TokenInputs};
use wgformer::nn::KvSource;
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::train::{
    BatchSource, Batches, DataState, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer,
};
use wgformer::{DType, Error, Gpu, Graph, Program, Recording, Result, Tensor, Weights};

fn main() {
    let mut trials = vec![
        Trial::test("weights of recursions are one tensor", weights_are_one),
        Trial::test("a recursion over a third of the tokens costs less than half", a_third_costs_less_than_half),
    ];
    for (name, device) in common::adapters(&mut trials) {
        for (title, config) in decoders() {
            let name = format!("[{name}] decoding gives the logits of reading: {title}");
            trials.push(device.trial(name, move |gpu| decoding_follows_reading(gpu, &config)));
        }
        trials.push(
            device.trial(format!("[{name}] recursions learn, and computing them again changes nothing"), learning),
        );
        trials.push(
            device.trial(format!("[{name}] capacities warm up, and a resumed run goes on where they were"), warming),
        );
        trials.push(
            device.trial(format!("[{name}] a step amid the warm-up has the gradients of its f64 twin"), amid_warmup),
        );
        trials.push(device.trial(format!("[{name}] gradients are the same bits on every run"), same_bits));
        trials.push(device.trial(format!("[{name}] recursions start from a trained Llama"), from_trained));
    }
    common::run(trials);
}

fn mor(more: Value) -> Value {
    small::mor(merged(json!({"router_alpha": 0.8}), more))
}

fn decoders() -> Vec<(&'static str, Value)> {
    vec![
        ("recursions choose", mor(json!({}))),
        (
            "four recursions of all layers",
            mor(json!({"sharing": "cycle", "num_hidden_layers": 8, "num_recursions": 4,
                                                      "capacity": [0.8, 0.5, 0.5, 0.2]})),
        ),
        ("shared keys", mor(json!({"kv_sharing": true, "num_hidden_layers": 8}))),
        ("capacities that warmed up", mor(json!({"capacity_warmup_steps": 3}))),
        ("a second router", mor(json!({"sampling": "aux_router", "router": "mlp", "router_function": "tanh"}))),
        ("tokens choose", mor(json!({"routing": "token_choice", "num_hidden_layers": 8}))),
        (
            "tokens choose, two modules",
            mor(json!({"routing": "token_choice", "num_modules": 2, "sharing": "cycle",
                                                   "num_hidden_layers": 3})),
        ),
        ("tokens choose, shared keys", mor(json!({"routing": "token_choice", "kv_sharing": true}))),
        ("nobody chooses", mor(json!({"routing": "none", "num_hidden_layers": 8}))),
        (
            "nobody chooses, shared keys, layers in a row",
            mor(json!({"routing": "none", "kv_sharing": true,
                                                                     "sharing": "middle_sequence"})),
        ),
    ]
}

/// Token `t` of text `row`, over 97 tokens.
fn token(row: usize, t: usize) -> u32 {
    ((t * t * 31 + t * 7 + 3 + 45 * row) % 97) as u32
}

/// Two texts of which different parts are read as prompts, padded on the right, and the rest token by token: all logits
/// must be those of reading the whole texts at once, in f64.
fn decoding_follows_reading(gpu: &Gpu, config: &Value) -> Result<(), Failed> {
    const WHOLE: usize = 21;
    let prompts = [7, 2];
    let (model, limits) = (decoder(config)?, GenerateLimits { batch: 2, max_tokens: 30 });
    let mut values = weights_of(model.as_ref())?;
    let weights = upload(gpu, model.as_ref(), &values)?;
    let expected = read_whole(model.as_ref(), &mut values, WHOLE)?;
    let prefill =
        Program::new(gpu, &Generator::prefill_graph(model.as_ref(), weights.storage(), limits, 9)?, &weights)?;
    let decode = Program::new(gpu, &Generator::decode_graph(model.as_ref(), weights.storage(), limits)?, &weights)?;
    prefill.fill_temporaries(f32::NAN.to_bits())?;
    decode.fill_temporaries(f32::NAN.to_bits())?;
    let words = |values: &[usize]| values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect::<Vec<u8>>();
    // Twice, so that the second prompt finds the caches used.
    for round in 0..2 {
        let ids: Vec<u32> = (0..2 * 9).map(|i| token(i / 9, i % 9)).collect();
        prefill.write("ids", bytemuck::cast_slice(&ids))?;
        prefill.write("last", &words(&[prompts[0] - 1, 9 + prompts[1] - 1]))?;
        if prefill.has_input("lengths") {
            prefill.write("lengths", &words(&prompts))?;
        }
        prefill.run()?;
        compare(&prefill.read_f32("logits")?, &expected, prompts.map(|n| n - 1), WHOLE)?;
        for step in 0..WHOLE - prompts[0] - round {
            let at = prompts.map(|n| n + step);
            decode.write("ids", bytemuck::cast_slice(&[token(0, at[0]), token(1, at[1])]))?;
            decode.write("positions", &words(&at))?;
            if decode.has_input("lengths") {
                decode.write("lengths", &words(&at.map(|n| n + 1)))?;
            }
            decode.run()?;
            compare(&decode.read_f32("logits")?, &expected, at, WHOLE)?;
        }
    }
    Ok(())
}

/// The logits at all positions of both texts, decided as if they came token by token.
fn read_whole(model: &dyn Decoder, values: &mut Values, time: usize) -> Result<Array> {
    let mut g = Graph::new();
    let ids = g.input("ids", [2, time], DType::U32)?;
    let lengths = g.input("lengths", [2], DType::U32)?;
    values.insert("ids".into(), Array::from_fn([2, time], |i| f64::from(token(i / time, i % time))));
    values.insert("lengths".into(), Array::from_fn([2], |_| time as f64));
    let inputs = TokenInputs { kv: KvSource::Prefill { capacity: time, lengths }, ..TokenInputs::new(&mut g, ids)? };
    let hidden = model.decode(&mut g, &inputs)?;
    let logits = model.logits(&mut g, hidden.states)?;
    let found = g.evaluate(values, &[logits])?.remove(0);
    let selected: Vec<Tensor> =
        hidden.routing.iter().filter(|(name, _)| name.starts_with("router_logits")).map(|(_, t)| *t).collect();
    for logits in g.evaluate(values, &selected)? {
        let yes = logits.data.iter().filter(|l| **l >= 0.0).count();
        if yes == 0 || yes == logits.data.len() {
            return Err(Error::Graph("a router says the same of all tokens: the test would show little".into()));
        }
    }
    Ok(found)
}

fn compare(got: &[f32], expected: &Array, at: [usize; 2], time: usize) -> Result<(), Failed> {
    for (row, &t) in at.iter().enumerate() {
        let expected = expected.row(row * time + t);
        let size = expected.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        let got = &got[row * expected.len()..][..expected.len()];
        let errors = got.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / size);
        let error = errors.fold(0.0_f64, |m, e| if e > m || e.is_nan() { e } else { m });
        if !(error <= 1e-4) {
            return Err(format!("the logits at position {t} of row {row} are off by {error:.1e}").into());
        }
    }
    Ok(())
}

/// A whole step: loss and gradients.
fn step(model: &dyn Decoder, batch: usize, time: usize) -> Result<Graph> {
    let mut g = Graph::new();
    let ids = g.input("ids", [batch, time], DType::U32)?;
    let labels = g.input("labels", [batch, time], DType::I32)?;
    let inputs = TokenInputs::new(&mut g, ids)?;
    let hidden = model.decode(&mut g, &inputs)?;
    let mut loss = model.loss_of(&mut g, hidden.states, labels, &CrossEntropyOptions::default())?;
    if let Some(auxiliary) = hidden.auxiliary {
        loss = ops::add(&mut g, loss, auxiliary)?;
    }
    let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
    let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
    for ((name, _), gradient) in parameters.iter().zip(g.differentiate(loss, &tensors)?) {
        let gradient = gradient.ok_or_else(|| Error::Graph(format!("{name} has no gradient")))?;
        g.output(&format!("grad.{name}"), gradient)?;
    }
    Ok(g)
}

fn same_bits(gpu: &Gpu) -> Result<(), Failed> {
    let model = decoder(&mor(json!({})))?;
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    let g = step(model.as_ref(), 2, 40)?;
    let run = || -> Result<Vec<Vec<u8>>> {
        let program = Program::new(gpu, &g, &weights)?;
        let ids: Vec<u32> = (0..80).map(|i| token(i / 40, i % 40)).collect();
        program.write("ids", bytemuck::cast_slice(&ids))?;
        program.write("labels", bytemuck::cast_slice(&ids))?;
        program.run()?;
        g.outputs().iter().map(|(name, _)| program.read(name)).collect()
    };
    if run()? == run()? { Ok(()) } else { Err("two runs differ".into()) }
}

/// One recursion of all tokens is the Llama it starts from, bit for bit; several are layers of it, or means of them.
fn from_trained(gpu: &Gpu) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let save = |name: &str, config: Value| -> Result<(Box<dyn Decoder>, Weights, ModelFolder)> {
        let model = decoder(&mor(config))?;
        let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
        let path = folder.path().join(name);
        models::save(model.as_ref(), &weights, None, &path)?;
        Ok((model, weights, ModelFolder::open(&path)?))
    };
    let (llama, weights, trained) = save("llama", json!({"model_type": "llama", "num_hidden_layers": 6}))?;
    let config = |more: Value| {
        let mut config = mor(json!({"num_hidden_layers": 6, "num_recursions": 2}));
        more.as_object().into_iter().flatten().for_each(|(key, value)| config[key] = value.clone());
        Config::new("config.json", config)
    };
    let logits = |model: &dyn Decoder, weights: &Weights| -> Result<Vec<u8>> {
        let mut g = Graph::new();
        let ids = g.input("ids", [2, 17], DType::U32)?;
        let inputs = TokenInputs::new(&mut g, ids)?;
        let hidden = model.decode(&mut g, &inputs)?;
        let logits = model.logits(&mut g, hidden.states)?;
        g.output("logits", logits)?;
        let program = Program::new(gpu, &g, weights)?;
        program.write("ids", bytemuck::cast_slice(&(0..34).map(|i| token(i / 17, i % 17)).collect::<Vec<u32>>()))?;
        program.run()?;
        program.read("logits")
    };
    let expected = logits(llama.as_ref(), &weights)?;
    let ways = [LayerInit::Stepwise, LayerInit::Average, LayerInit::Lower];
    for (from, sharing) in ways.into_iter().zip(["cycle", "middle_cycle", "middle_sequence"]) {
        let once = config(json!({"num_recursions": 1, "routing": "none", "sharing": sharing}))?;
        let (model, weights) = models::uptrain_from_llama(gpu, &once, &trained, from, DType::F32, 3)?;
        if logits(&model, &weights)? != expected {
            return Err(format!("{from:?}: one recursion is not the Llama").into());
        }
    }
    let values = |weights: &Weights, layer: usize, part: &str| -> Result<Vec<f32>> {
        Ok(bytemuck::pod_collect_to_vec(&weights.download(&format!("model.layers.{layer}.{part}"))?))
    };
    let layers: [(LayerInit, [&[usize]; 4]); 3] = [
        (LayerInit::Stepwise, [&[0], &[1], &[4], &[5]]),
        (LayerInit::Average, [&[0], &[1, 3], &[2, 4], &[5]]),
        (LayerInit::Lower, [&[0], &[1], &[2], &[5]]),
    ];
    for (from, layers) in layers {
        let (model, started) = models::uptrain_from_llama(gpu, &config(json!({}))?, &trained, from, DType::F32, 3)?;
        for (stored, of) in layers.into_iter().enumerate() {
            for part in ["self_attn.k_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight"] {
                let found = values(&started, stored, part)?;
                let mut expected = vec![0.0; found.len()];
                for layer in of {
                    let share = |x: f32| f64::from(x) / of.len() as f64;
                    let values = values(&weights, *layer, part)?;
                    expected.iter_mut().zip(values).for_each(|(sum, x)| *sum += share(x));
                }
                if found.iter().zip(&expected).any(|(a, b)| !((f64::from(*a) - b).abs() <= 1e-7 * b.abs().max(1.0))) {
                    return Err(format!("{from:?}: {part} of layer {stored} is not that of {of:?}").into());
                }
            }
        }
        let router: Vec<f32> = bytemuck::pod_collect_to_vec(&started.download("model.routers.1.weight")?);
        if !router.iter().all(|x| x.is_finite()) || router.iter().all(|x| *x == 0.0) {
            return Err("a router is not fresh".into());
        }
        logits(&model, &started)?;
    }
    let refused = |config: &Config, trained: &ModelFolder| match models::uptrain_from_llama(
        gpu,
        config,
        trained,
        LayerInit::Average,
        DType::F32,
        3,
    ) {
        Ok(_) => "nothing is wrong".to_owned(),
        Err(error) => error.to_string(),
    };
    let (.., recursive) = save("mor", json!({}))?;
    let wrong = [
        (
            config(json!({"num_hidden_layers": 4}))?,
            &trained,
            "\"num_hidden_layers\" is 4; the trained model has 6 layers",
        ),
        (config(json!({"num_recursions": 3}))?, &trained, "multiple of num_recursions, 3 (it is one of 1, 2, 4)"),
        (config(json!({"hidden_size": 36}))?, &trained, "the new model needs [97, 36]"),
        (config(json!({"num_local_experts": 4}))?, &trained, "\"num_local_experts\" is set"),
        (config(json!({}))?, &recursive, "\"model_type\" is \"mor\"; recursions start from a llama"),
    ];
    for (config, trained, expected) in wrong {
        let said = refused(&config, trained);
        if !said.contains(expected) {
            return Err(format!("\"{said}\" lacks \"{expected}\"").into());
        }
    }
    Ok(())
}

/// Both kinds of routers train, with the same bits whether activations are kept or computed again; a bias that follows the
/// loads moves in steps of its rate.
fn learning(gpu: &Gpu) -> Result<(), Failed> {
    const STEPS: usize = 16;
    let text: Arc<[u32]> = (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    let token_choice = json!({"routing": "token_choice", "router_bias": 0.125, "num_modules": 2});
    for config in [mor(json!({"sampling": "aux_router"})), mor(token_choice)] {
        let run = |recompute: bool| -> Result<(Vec<f32>, Vec<u8>, Trainer)> {
            let (model, options) = (decoder(&config)?.into(), CrossEntropyOptions::default());
            let objective = LanguageModel { model, rows: 3, length: 17, options };
            let weights = Weights::new(gpu);
            objective.model.initialise(&weights, 1)?;
            let options = StepOptions { recompute, ..StepOptions::default() };
            let schedule = Schedule::constant(0.01);
            let mut trainer = Trainer::new(gpu, &weights, &objective, options, RunOptions::default(), schedule)?;
            let (mut data, mut losses) = (Batches::new(text.clone(), 3, 17, 2)?, Vec::new());
            for _ in 0..STEPS {
                trainer.submit_step(&mut data)?;
            }
            trainer.reports(0, &mut |event: &Event| {
                if let Event::Step(step) = event {
                    losses.push(step.report.loss);
                }
            })?;
            Ok((losses, trainer.weights().download("flat.parameters")?, trainer))
        };
        let (plain, again) = (run(false)?, run(true)?);
        if plain.0 != again.0 || plain.1 != again.1 {
            return Err(format!("{:?} and {:?} differ", plain.0, again.0).into());
        }
        if !(plain.0[STEPS - 1] < 0.8 * plain.0[0]) {
            return Err(format!("the loss went from {} to {}", plain.0[0], plain.0[STEPS - 1]).into());
        }
        if config["routing"] == "token_choice" {
            let bytes = plain.2.weights().download("model.router.bias")?;
            let bias: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            let steps = |x: &f32| (x / 0.125).fract() == 0.0 && x.abs() <= 0.125 * STEPS as f32;
            if !bias.iter().all(steps) || bias.iter().all(|x| *x == 0.0) {
                return Err(format!("the bias is {bias:?}").into());
            }
        }
    }
    Ok(())
}

/// Recursions take all tokens at first and their share after the warm-up, only in training; a run that warms up learns, and
/// one that is saved and resumed amid the warm-up ends with the same bits.
fn warming(gpu: &Gpu) -> Result<(), Failed> {
    const STEPS: usize = 16;
    let config = mor(json!({"capacity_warmup_steps": 5, "sampling": "aux_router"}));
    let model: Arc<dyn Decoder> = decoder(&config)?.into();
    let weights = upload(gpu, model.as_ref(), &weights_of(model.as_ref())?)?;
    weights.upload("model.capacity_step", &[0; 4])?;
    let mut g = Graph::new();
    let ids = g.input("ids", [2, 17], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?.for_training();
    for (name, tensor) in model.decode(&mut g, &inputs)?.routing {
        g.output(&name, tensor)?;
    }
    let program = Program::new(gpu, &g, &weights)?;
    program.write("ids", bytemuck::cast_slice(&(0..34).map(|i| token(i / 17, i % 17)).collect::<Vec<u32>>()))?;
    for (step, expected) in [[17, 17], [16, 15], [14, 12], [13, 9], [11, 6], [11, 5], [11, 5]].into_iter().enumerate() {
        program.run()?;
        for (recursion, count) in [1, 2].into_iter().zip(expected) {
            let taken: Vec<u32> = bytemuck::pod_collect_to_vec(&program.read(&format!("taken.{recursion}"))?);
            if taken != [count, count] {
                return Err(format!("recursion {recursion} took {taken:?} at step {step}, not {count}").into());
            }
        }
    }
    let mut g = Graph::new();
    let ids = g.input("ids", [2, 17], DType::U32)?;
    let inputs = TokenInputs::new(&mut g, ids)?;
    let routing = model.decode(&mut g, &inputs)?.routing;
    let slots = routing.iter().filter(|(name, _)| name.starts_with("selected")).map(|(_, t)| g.shape(*t).last());
    if slots.collect::<Vec<_>>() != [17, 11, 5] {
        return Err("an evaluation warms up".into());
    }

    let text: Arc<[u32]> = (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    let objective = LanguageModel { model, rows: 3, length: 17, options: CrossEntropyOptions::default() };
    let trainer = || -> Result<Trainer> {
        let (weights, schedule) = (Weights::new(gpu), Schedule::constant(0.01));
        objective.model.initialise(&weights, 1)?;
        Trainer::new(gpu, &weights, &objective, StepOptions::default(), RunOptions::default(), schedule)
    };
    let steps = |trainer: &mut Trainer, data: &mut Batches, count: usize| -> Result<Vec<f32>> {
        let mut losses = Vec::new();
        for _ in 0..count {
            trainer.submit_step(data)?;
        }
        trainer.reports(0, &mut |event: &Event| {
            if let Event::Step(step) = event {
                losses.push(step.report.loss);
            }
        })?;
        Ok(losses)
    };
    let mut through = trainer()?;
    let losses = steps(&mut through, &mut Batches::new(text.clone(), 3, 17, 2)?, STEPS)?;
    if !(losses[STEPS - 1] < 0.8 * losses[0]) {
        return Err(format!("the losses are {losses:?}").into());
    }
    let folder = tempfile::tempdir()?;
    let checkpoints = Checkpoints::new(folder.path(), 2);
    let (mut killed, mut data) = (trainer()?, Batches::new(text.clone(), 3, 17, 2)?);
    steps(&mut killed, &mut data, 3)?;
    killed.save(&checkpoints, &data.position(), &[])?;
    let mut resumed = trainer()?;
    let position = resumed.resume(&checkpoints.latest()?.ok_or("no checkpoint")?)?;
    let state: DataState = serde_json::from_value(position)?;
    let rest = steps(&mut resumed, &mut Batches::resume(text, 3, 17, state)?, STEPS - 3)?;
    let counted: Vec<f32> = bytemuck::pod_collect_to_vec(&resumed.weights().download("model.capacity_step")?);
    let parameters = |trainer: &Trainer| trainer.weights().download("flat.parameters");
    if rest != losses[3..] || counted != [STEPS as f32] || parameters(&through)? != parameters(&resumed)? {
        return Err(format!("{losses:?} went on with {rest:?}, {counted:?} steps counted").into());
    }
    Ok(())
}

/// Loss and gradients of a step amid the warm-up, in which slots are left over, whatever was in memory before.
fn amid_warmup(gpu: &Gpu) -> Result<(), Failed> {
    for more in [json!({}), json!({"kv_sharing": true, "sampling": "aux_router"}), json!({"capacity": [0.7, 0.4, 0.4]})]
    {
        let mut config = mor(more);
        config["capacity_warmup_steps"] = 5.into();
        let model = decoder(&config)?;
        let mut values = weights_of(model.as_ref())?;
        values.insert("model.capacity_step".into(), Array::new([1], vec![2.0])?);
        let weights = upload(gpu, model.as_ref(), &values)?;
        let (mut g, shape) = (Graph::new(), [2, 33]);
        let ids = g.input("ids", shape, DType::U32)?;
        let labels = g.input("labels", shape, DType::I32)?;
        let tokens: Vec<u32> = (0..66).map(|i| token(i / 33, i % 33)).collect();
        for name in ["ids", "labels"] {
            values.insert(name.into(), Array::from_fn(shape, |i| f64::from(tokens[i])));
        }
        let inputs = TokenInputs::new(&mut g, ids)?.for_training();
        let hidden = model.decode(&mut g, &inputs)?;
        let loss = model.loss_of(&mut g, hidden.states, labels, &CrossEntropyOptions::default())?;
        let loss = ops::add(&mut g, loss, hidden.auxiliary.ok_or("no auxiliary loss")?)?;
        let parameters: Vec<(String, Tensor)> = g.parameters().map(|(n, t)| (n.to_owned(), t)).collect();
        let tensors: Vec<Tensor> = parameters.iter().map(|(_, t)| *t).collect();
        let mut wanted = vec![("loss".to_owned(), loss)];
        for ((name, _), gradient) in parameters.iter().zip(g.differentiate(loss, &tensors)?) {
            wanted.extend(gradient.map(|gradient| (format!("grad.{name}"), gradient)));
        }
        if wanted.len() != parameters.len() {
            return Err("all parameters but the count of steps have a gradient".into());
        }
        for (name, tensor) in &wanted {
            g.output(name, *tensor)?;
        }
        let program = Program::new(gpu, &g, &weights)?;
        program.fill_temporaries(f32::NAN.to_bits())?;
        program.write("ids", bytemuck::cast_slice(&tokens))?;
        program.write("labels", bytemuck::cast_slice(&tokens))?;
        program.run()?;
        let tensors: Vec<Tensor> = wanted.iter().map(|(_, t)| *t).collect();
        for ((name, _), expected) in wanted.iter().zip(g.evaluate(&values, &tensors)?) {
            let size = expected.data.iter().fold(1e-6_f64, |m, x| m.max(x.abs()));
            let got = program.read_f32(name)?;
            let off = |(a, b): (&f32, &f64)| !((f64::from(*a) - b).abs() <= 1e-3 * size);
            if got.iter().zip(&expected.data).any(off) {
                return Err(format!("{config}: {name} is not that of its f64 twin").into());
            }
        }
    }
    Ok(())
}

/// However often a layer is used, it has one set of weights, and each has one gradient: the sum over its uses.
fn weights_are_one() -> Result<(), Failed> {
    for routing in ["none", "expert_choice", "token_choice"] {
        let names = |layers: usize, recursions: usize| -> Result<Vec<String>> {
            let config = json!({"routing": routing, "num_hidden_layers": layers, "num_recursions": recursions});
            let g = step(decoder(&mor(config))?.as_ref(), 1, 12)?;
            Ok(g.parameters().map(|(name, _)| name.to_owned()).filter(|name| !name.contains("router")).collect())
        };
        let (once, thrice) = (names(4, 1)?, names(8, 3)?);
        if once != thrice || once.len() != 2 + 4 * 9 {
            return Err(format!("{routing}: {} and {} weights", once.len(), thrice.len()).into());
        }
    }
    Ok(())
}

/// What a training step computes and moves for a last recursion over a third of the tokens, beside one over all.
fn a_third_costs_less_than_half() -> Result<(), Failed> {
    let caps = Caps::baseline();
    let cost = |capacity: &[f64]| -> Result<[f64; 2]> {
        let recursions = capacity.len();
        let config = json!({"hidden_size": 256, "num_attention_heads": 4, "head_dim": 64, "intermediate_size": 680,
                            "num_recursions": recursions, "num_hidden_layers": 2 + 2 * recursions,
                            "max_position_embeddings": 512, "capacity": capacity});
        let recording = Recording::new(&step(decoder(&mor(config))?.as_ref(), 2, 512)?, &caps)?;
        Ok([recording.flops() as f64, recording.bytes() as f64])
    };
    let (one, full, third) = (cost(&[1.0])?, cost(&[1.0, 1.0])?, cost(&[1.0, 0.3334])?);
    for (what, i) in [("operations", 0), ("bytes", 1)] {
        let share = (third[i] - one[i]) / (full[i] - one[i]);
        println!("{what}: {share:.3} of a full recursion");
        if !(share <= 0.45) {
            return Err(format!("{what}: {share:.3} of a full recursion").into());
        }
    }
    Ok(())
}
