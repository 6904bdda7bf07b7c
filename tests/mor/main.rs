//! Mixtures of recursions on every adapter of this machine: decoding against reading, shared weights, the
//! cost of a recursion.

mod biased;
#[path = "../common/mod.rs"]
mod common;
mod decoding;
#[path = "../common/models.rs"]
mod small;
mod training;
mod uptraining;

use biased::{biased_decoding, recursions};
use decoding::{decoders, decoding_follows_reading};
use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use small::{decoder, merged, upload, weights_of};
use training::{amid_warmup, learning, warming};
use uptraining::from_trained;
use wgformer::kernel::Caps;
use wgformer::models::{Decoder, TokenInputs};
use wgformer::ops::{self, CrossEntropyOptions};
use wgformer::{DType, Error, Gpu, Graph, Program, Recording, Result, Tensor};

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
        for (title, recursion, relative) in recursions() {
            let name = format!("[{name}] decoding gives the states of reading, with biases by distance: {title}");
            trials.push(device.trial(name, move |gpu| biased_decoding(gpu, &recursion, &relative)));
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

/// Token `t` of text `row`, over 97 tokens.
fn token(row: usize, t: usize) -> u32 {
    ((t * t * 31 + t * 7 + 3 + 45 * row) % 97) as u32
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

/// The operations and bytes of a last recursion over a third of the tokens, against one over all.
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
