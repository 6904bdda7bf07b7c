//! Training: both kinds of routers, and capacities that warm up.

use super::small::{decoder, upload, weights_of};
use super::{mor, token};
use libtest_mimic::Failed;
use serde_json::json;
use std::sync::Arc;
use wgformer::graph::Array;
use wgformer::io::Checkpoints;
use wgformer::models::{Decoder, TokenInputs};
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::train::{
    BatchSource, Batches, DataState, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer,
};
use wgformer::{DType, Gpu, Graph, Program, Result, Tensor, Weights};

/// Both kinds of routers train, with the same bits whether activations are kept or computed again; a bias that follows the
/// loads moves in steps of its rate.
pub(crate) fn learning(gpu: &Gpu) -> Result<(), Failed> {
    const STEPS: usize = 16;
    let text: Arc<[u32]> = (0..400).map(|i| [5, 17, 3, 81, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    let token_choice = json!({"routing": "token_choice", "router_bias": 0.125, "num_modules": 2});
    for config in [mor(json!({"sampling": "aux_router"})), mor(token_choice)] {
        let run = |recompute: bool| -> Result<(Vec<f32>, Vec<u8>, Trainer)> {
            let (model, options) = (decoder(&config)?.into(), CrossEntropyOptions::default());
            let objective = LanguageModel { model, rows: 3, length: 17, options };
            let weights = Weights::new(gpu);
            objective.model.initialise(&weights, 1)?;
            let options = StepOptions::default().with_recompute(recompute);
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
pub(crate) fn warming(gpu: &Gpu) -> Result<(), Failed> {
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

/// Loss and gradients of a step amid the warm-up, with unused slots and arbitrary old memory.
pub(crate) fn amid_warmup(gpu: &Gpu) -> Result<(), Failed> {
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
