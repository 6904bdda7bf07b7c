//! A small GPT that learns a text.

use super::loaded::Loaded;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;
use wgformer::io::{Config, Tokenizer};
use wgformer::models;
use wgformer::ops::CrossEntropyOptions;
use wgformer::train::{Batches, Decay, Event, LanguageModel, RunOptions, Schedule, StepOptions, Trainer};
use wgformer::{Gpu, Result, Weights};

/// Steps in flight, so that the GPU need not wait for the page.
const IN_FLIGHT: usize = 2;
/// The share of the peak that the learning rate ends with.
const FLOOR: f64 = 0.1;

/// The size of a model and the run that trains it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct TrainOptions {
    pub(crate) steps: u64,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    /// Tokens of a row, which are characters.
    pub(crate) context: usize,
    /// Rows of a step.
    pub(crate) batch: usize,
    pub(crate) learning_rate: f64,
    pub(crate) seed: u64,
    #[serde(rename = "signal")]
    pub(crate) _signal: Option<IgnoredAny>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            steps: 200,
            layers: 2,
            heads: 4,
            width: 64,
            context: 64,
            batch: 8,
            learning_rate: 3e-3,
            seed: 0,
            _signal: None,
        }
    }
}

/// A step that is done.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) loss: f32,
    pub(crate) learning_rate: f32,
    pub(crate) tokens_per_second: f64,
}

/// Trains a GPT-2 from scratch on the characters of a text; `watch` is told each step, and can break off. The model is as good as it got.
pub(crate) async fn train(
    gpu: &Gpu,
    text: &str,
    options: &TrainOptions,
    watch: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<Loaded> {
    let tokenizer = Tokenizer::characters(text)?;
    let tokens = tokenizer.encode(text)?;
    let config = Config::new(
        "options",
        json!({
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": tokenizer.vocab_size(),
            "n_positions": options.context, "n_embd": options.width, "n_layer": options.layers, "n_head": options.heads,
            "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
            "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": null, "eos_token_id": null,
        }),
    )?;
    let model: Arc<dyn models::Decoder> = models::decoder(&config)?.into();
    let weights = Weights::new(gpu);
    model.initialise(&weights, options.seed)?;
    let (rows, length, steps) = (options.batch, options.context, options.steps);
    let objective = LanguageModel { model: model.clone(), rows, length, options: CrossEntropyOptions::default() };
    let schedule =
        Schedule { peak: options.learning_rate, warmup: steps / 10, steps, decay: Decay::Cosine { floor: FLOOR } };
    let run = RunOptions::default().with_steps(steps).with_seed(options.seed);
    let mut batches = Batches::new(tokens.into(), rows, length, options.seed)?;
    let mut trainer = Trainer::new(gpu, &weights, &objective, StepOptions::default(), run, schedule)?;
    let stop = Cell::new(false);
    let mut report = |event: &Event| {
        if let Event::Step(event) = event {
            let step = Step {
                step: event.step,
                steps: event.steps,
                loss: event.report.loss,
                learning_rate: event.learning_rate,
                tokens_per_second: event.tokens_per_second,
            };
            stop.set(stop.get() | watch(step).is_break());
        }
    };
    for _ in 0..steps {
        trainer.step_async(&mut batches, IN_FLIGHT, &mut report).await?;
        if stop.get() {
            break;
        }
    }
    trainer.reports_async(0, &mut report).await?;
    Ok(Loaded::made(gpu, model, weights, tokenizer))
}
