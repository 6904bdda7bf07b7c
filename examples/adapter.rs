//! A model learns the user's own text as a low-rank adapter (LoRA) beside its weights, which stay. The adapter is kept in a folder of its own, in
//! the format of PEFT, and opens with its base.
//!
//! Run it with `cargo run --example adapter -- MODEL_FOLDER TEXT_FILE ADAPTER_FOLDER`; without arguments a tiny new model learns.

use std::path::Path;
use wgformer::io::{Config, ModelFolder, Tokenizer};
use wgformer::models::lora::{self, LoraConfig, Targets};
use wgformer::models::{self, Decoder};
use wgformer::train::{Batches, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer, held_out};
use wgformer::{Gpu, Result, Weights};

/// Rows of a step, and tokens of a row.
const SIZE: [usize; 2] = [4, 32];
const STEPS: u64 = 24;

/// The losses of the text before and after.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learned {
    pub(crate) before: f64,
    pub(crate) after: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let gpu = Gpu::choose(None)?;
    let learned = match &arguments[..] {
        [model, text, out] => learn(&gpu, Path::new(model), &std::fs::read_to_string(text)?, Path::new(out))?,
        [] => {
            let home = tempfile::tempdir()?;
            let base = home.path().join("base");
            new_model(&gpu, &base)?;
            learn(
                &gpu,
                &base,
                &"The cat sat on the mat, and the dog lay by the door. ".repeat(30),
                &home.path().join("out"),
            )?
        }
        _ => return Err("usage: adapter [MODEL_FOLDER TEXT_FILE ADAPTER_FOLDER]".into()),
    };
    println!("loss of the text: {:.3} before, {:.3} with the adapter", learned.before, learned.after);
    Ok(())
}

/// Trains an adapter of the model in `base` on a text, and keeps it in `out`.
///
/// # Errors
/// Those of the files, and of training.
pub(crate) fn learn(gpu: &Gpu, base: &Path, text: &str, out: &Path) -> Result<Learned> {
    let folder = ModelFolder::open(base)?;
    let model = models::decoder_of(&folder)?;
    let model: std::sync::Arc<dyn Decoder> = model.into();
    let tokens = match folder.expect_tokenizer() {
        Ok(tokenizer) => tokenizer.encode(text)?,
        Err(_) => Tokenizer::bytes()?.encode(text)?,
    };
    // The base as its file has it, few bits a weight as well; only the adapters are trained.
    let config =
        LoraConfig::default().with_rank(8).with_targets(Targets::AllLinear).with_base(base.display().to_string());
    let types = models::storage_of(model.as_ref(), &folder.tensors)?;
    let weights = lora::load_base(gpu, model.as_ref(), types, &folder.tensors, &config, (&[], 0))?;
    lora::fresh_adapters(model.as_ref(), &weights, 0)?;

    let [rows, length] = SIZE;
    let objective = LanguageModel { model: model.clone(), rows, length, options: Default::default() };
    let run = RunOptions::default().with_steps(STEPS);
    let schedule = Schedule::constant(1e-2);
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
    let measured = held_out(&tokens, rows, length);
    let before = trainer.evaluate(&measured)?;
    let mut batches = Batches::new(tokens.into(), rows, length, 0)?;
    let mut report = |event: &Event| {
        if let Event::Step(step) = event {
            println!("step {:>3}: loss {:.3}", step.step, step.report.loss);
        }
    };
    for _ in 0..STEPS {
        trainer.submit_step(&mut batches)?;
        trainer.reports(2, &mut report)?;
    }
    trainer.reports(0, &mut report)?;
    let after = trainer.evaluate(&measured)?;
    lora::save_adapter(model.as_ref(), &weights, &config, out)?;
    Ok(Learned { before, after })
}

/// Saves a tiny new model.
///
/// # Errors
/// Those of the files.
pub(crate) fn new_model(gpu: &Gpu, path: &Path) -> Result<()> {
    let config = serde_json::json!({"model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64});
    let model = models::decoder(&Config::new("config.json", config)?)?;
    let weights = Weights::new(gpu);
    model.initialise(&weights, 1)?;
    models::save(model.as_ref(), &weights, None, path)
}
