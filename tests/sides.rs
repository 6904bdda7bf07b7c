//! Encoders, decoders and both, dense, with experts and with recursions: each against its f64 twin, and each learns a text.
//!
//! `cargo test --test sides -- NAME` runs some of it.

mod common;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::sync::Arc;
use wgformer::check::{Case, Comparison, models as cases};
use wgformer::io::Config;
use wgformer::models::{self, Model};
use wgformer::program::pack;
use wgformer::tasks::{TaskObjective, TextBatches, TextTask, task_of};
use wgformer::train::{Batches, Corpus, Event, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Gpu, Result, Weights};

/// Training steps of a model.
const STEPS: usize = 200;

fn main() {
    let mut trials = Vec::new();
    let adapters = common::adapters_also_as_gpus(&mut trials);
    // Learning runs on the fastest driver only, since other tests compare the results of all drivers.
    let fastest = adapters.iter().position(|(name, _)| name.starts_with("Vulkan llvmpipe")).unwrap_or(0);
    for (number, (name, device)) in adapters.into_iter().enumerate() {
        for case in cases::small() {
            let title = case.name.trim_start_matches("model ").to_owned();
            trials.push(device.trial(format!("[{name}] {title}"), move |gpu| twin(gpu, &case)));
        }
        if number == fastest {
            trials.push(
                device.trial(format!("[{name}] a bias of logits does not learn"), a_bias_of_logits_does_not_learn),
            );
        }
        for (title, config) in cases::families().into_iter().take(9).filter(|_| number == fastest) {
            trials.push(device.trial(format!("[{name}] {title}, learns a text"), move |gpu| learns(gpu, config)));
        }
    }
    trials.push(Trial::test("gradients of the twins are differences of their losses", differences));
    // One kind of a family covers the family on a driver.
    let parts = |_: &str, title: &str| title.split(", ").map(str::to_owned).collect();
    common::choice::run(&Arguments::from_args(), trials, parts)
}

fn model(config: &Value) -> Result<Box<dyn Model>> {
    models::model(&Config::new("config.json", config.clone())?)
}

/// Compares a model with its twin.
fn twin(gpu: &Gpu, case: &Case) -> Result<(), Failed> {
    verdict(case.run(gpu)?)
}

/// Along a random direction, for every model, the gradient is a difference of losses.
fn differences() -> Result<(), Failed> {
    cases::small().iter().try_for_each(|case| verdict(case.check_gradients(1)?))
}

fn verdict(comparisons: Vec<Comparison>) -> Result<(), Failed> {
    let missed: Vec<String> = comparisons
        .iter()
        .filter(|found| !found.passed)
        .map(|found| format!("{}: error {:.1e}, NMSE {:.1e}", found.what, found.worst, found.nmse))
        .collect();
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n").into()) }
}

/// The first characters of a novel as numbers, and how many there are.
fn novel() -> Result<(Vec<u32>, u32), Failed> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/pride_and_prejudice.txt");
    let text: Vec<char> = std::fs::read_to_string(path)?.chars().take(60_000).collect();
    let mut alphabet = text.clone();
    alphabet.sort_unstable();
    alphabet.dedup();
    let id = |c: &char| alphabet.binary_search(c).map(|i| i as u32).map_err(|_| "a character without a number");
    let ids: Result<Vec<u32>, _> = text.iter().map(id).collect();
    Ok((ids?, alphabet.len() as u32))
}

/// A model learns a text: the loss of its last steps is well below that of its first ones.
fn learns(gpu: &Gpu, mut config: Value) -> Result<(), Failed> {
    let (ids, alphabet) = novel()?;
    // Two ids more: a mask, and the start of answers.
    config["vocab_size"] = (alphabet + 2).into();
    config["pad_token_id"] = (alphabet + 1).into();
    config["hidden_size"] = 64.into();
    config["intermediate_size"] = 128.into();
    config["initializer_range"] = 0.05.into();
    let model: Arc<dyn Model> = model(&config)?.into();
    let task = match task_of(model.as_ref())?.name() {
        "masked-language-model" => TextTask::Masked { mask: alphabet, below: alphabet },
        "sequence-to-sequence" => TextTask::Continued { start: alphabet + 1 },
        _ => TextTask::Next,
    };
    let (rows, length) = (8, 32);
    let objective = TaskObjective::on_text(model.clone(), rows, length)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    let run = RunOptions::default().with_seed(9);
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(3e-3))?;
    let corpus = Corpus::new(&ids, 0.1)?;
    let mut data = TextBatches { rows: Batches::new(corpus.train, rows, length, 2)?, task };
    let mut losses = Vec::new();
    let mut note = |event: &Event| {
        if let Event::Step(step) = event {
            losses.push(f64::from(step.report.loss));
        }
    };
    for _ in 0..STEPS {
        trainer.submit_step(&mut data)?;
        trainer.reports(3, &mut note)?;
    }
    trainer.reports(0, &mut note)?;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[STEPS - 30..]));
    println!("{first:.3} → {last:.3}");
    if last < 0.9 * first { Ok(()) } else { Err(format!("{first:.3} became {last:.3}").into()) }
}

/// `final_logits_bias` is part of a BART, and no gradient reaches it.
fn a_bias_of_logits_does_not_learn(gpu: &Gpu) -> Result<(), Failed> {
    const BIAS: &str = "final_logits_bias";
    let config = cases::families().into_iter().find(|(title, _)| title == "BART").ok_or("no BART")?.1;
    let model: Arc<dyn Model> = model(&config)?.into();
    let objective = TaskObjective::on_text(model.clone(), 2, 8)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    weights.upload(BIAS, &pack(&[0.5; 97], wgformer::DType::F32))?;
    let run = RunOptions::default().with_seed(9);
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, Schedule::constant(0.1))?;
    let ids = (0..200).map(|i| (i * 7 % 90) as u32).collect();
    let mut data = TextBatches { rows: Batches::new(ids, 2, 8, 2)?, task: TextTask::Continued { start: 2 } };
    for _ in 0..3 {
        trainer.submit_step(&mut data)?;
    }
    trainer.reports(0, &mut |_: &Event| ())?;
    let same = weights.download(BIAS)? == pack(&[0.5; 97], wgformer::DType::F32);
    let learnt = weights.download("model.shared.weight")? != {
        let fresh = Weights::new(gpu);
        model.initialise(&fresh, 1)?;
        fresh.download("model.shared.weight")?
    };
    if same && learnt { Ok(()) } else { Err(format!("the bias stayed: {same}; the table learnt: {learnt}").into()) }
}
