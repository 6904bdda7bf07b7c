//! Training fresh models.

use super::small::{decoder, gpt2, llama};
use libtest_mimic::Failed;
use serde_json::json;
use std::ops::ControlFlow;
use std::sync::Arc;
use wgformer::generate::{GenerateLimits, Generator, SamplingOptions};
use wgformer::models::Decoder;
use wgformer::ops::CrossEntropyOptions;
use wgformer::tasks::{ListOps, ListOpsBatches, listops};
use wgformer::train::{
    Batches, LanguageModel, RunOptions, Schedule, StepOptions, Trainer, TreeLanguageModel, held_out,
};
use wgformer::{Gpu, Result, Weights};

/// Fresh models learn a text that repeats, with dropout where they have it, and then generate it.
pub(crate) fn trained_models_continue(gpu: &Gpu) -> Result<(), Failed> {
    let text: Vec<u32> = (0..400).map(|i| [5, 17, 3, 96, 42, 0, 61, 8, 77, 29, 50][i % 11]).collect();
    for config in [
        gpt2(json!({"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1})),
        llama(json!({"attention_dropout": 0.1})),
    ] {
        let model: Arc<dyn Decoder> = decoder(&config)?.into();
        let weights = Weights::new(gpu);
        model.initialise(&weights, 1)?;
        let (rows, length, steps) = (4, 16, 80);
        let objective = LanguageModel { model: model.clone(), rows, length, options: CrossEntropyOptions::default() };
        let run = RunOptions::default().with_steps(steps);
        let schedule = Schedule::constant(0.01);
        let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
        let held_out = held_out(&text[..80], rows, length);
        let before = trainer.evaluate(&held_out)?;
        let mut data = Batches::new(text.clone().into(), rows, length, 3)?;
        for _ in 0..steps {
            trainer.submit_step(&mut data)?;
            trainer.reports(2, &mut |_: &wgformer::train::Event| ())?;
        }
        trainer.reports(0, &mut |_: &wgformer::train::Event| ())?;
        let after = trainer.evaluate(&held_out)?;
        // The loss of an untrained model is the logarithm of 97. The first tokens of a window stay uncertain.
        if !((before - 97.0_f64.ln()).abs() < 0.1 && after < 0.5) {
            return Err(format!("{}: the loss went from {before} to {after}", config["model_type"]).into());
        }
        let limits = GenerateLimits::new(1, 40);
        let mut generator = Generator::new(gpu, model, trainer.weights(), limits)?;
        let prompt = text[..9].to_vec();
        let answers = generator.generate(&[prompt], &SamplingOptions::greedy(20), |_| ControlFlow::Continue(()))?;
        if answers[0].tokens != text[9..29] {
            return Err(format!("{:?} does not go on as {:?}", answers[0].tokens, &text[9..29]).into());
        }
    }
    Ok(())
}

/// Fresh models learn to do better on held-out expressions than to guess a digit, whose loss is 2.3.
pub(crate) fn models_with_tree_masks_learn(gpu: &Gpu) -> Result<(), Failed> {
    let vocabulary = listops::NAMES.len();
    for config in [gpt2(json!({"vocab_size": vocabulary})), llama(json!({"vocab_size": vocabulary}))] {
        let model: Arc<dyn Decoder> = decoder(&config)?.into();
        let task = ListOps { depth: 1..=1, arguments: 2..=2, length: 5, tree: true, lists: false };
        let weights = Weights::new(gpu);
        model.initialise(&weights, 1)?;
        let (rows, steps) = (64, 80);
        let plain = LanguageModel { model, rows, length: task.length, options: CrossEntropyOptions::default() };
        let objective = TreeLanguageModel(plain);
        let run = RunOptions::default().with_steps(steps);
        let schedule = Schedule::constant(0.005);
        let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
        let held_out = task.held_out(rows, 96, 2)?;
        let before = trainer.evaluate(&held_out)?;
        let mut data = ListOpsBatches::new(task, rows, 3)?;
        for _ in 0..steps {
            trainer.submit_step(&mut data)?;
            trainer.reports(2, &mut |_: &wgformer::train::Event| ())?;
        }
        trainer.reports(0, &mut |_: &wgformer::train::Event| ())?;
        let after = trainer.evaluate(&held_out)?;
        if !((before - (vocabulary as f64).ln()).abs() < 0.1 && after < 2.0) {
            return Err(format!("{}: the loss went from {before} to {after}", config["model_type"]).into());
        }
    }
    Ok(())
}
