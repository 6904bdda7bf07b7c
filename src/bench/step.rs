//! Whole steps of a model on random tokens, for the benchmark and the profiler.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{GenerateLimits, Generator, TokenPick};
use crate::gpu::Gpu;
use crate::graph::{Graph, Storage};
use crate::io::Config;
use crate::kernel::Caps;
use crate::models::{self, Model, TokenInputs};
use crate::program::{Plan, Program, Source, Weights};
use crate::tasks::TaskObjective;
use crate::train::{DROPOUT_SEED, Objective, Part, REPORT, SCALARS, StepOptions, TrainStep};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::sync::Arc;
use web_time::Instant;

/// The kinds of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepKind {
    /// Forward, backward, clipping, AdamW.
    Train,
    /// Forward and loss.
    Evaluate,
    /// Forward up to what the model's task gives: the logits of every token.
    Forward,
    /// A text read by an encoder; with a decoder behind it, up to the keys and values of its cross-attention.
    Encode,
    /// A prompt read into the caches, up to the logits of its last token; where an encoder reads the prompt, the token that answers
    /// begin with.
    Prefill,
    /// One token after a half-filled cache, up to its logits.
    Decode,
}

/// The size of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSize {
    /// Sequences in a batch.
    pub batch: usize,
    /// Tokens of a sequence; for decoding the size of its cache.
    pub length: usize,
}

/// The seconds of preparing a step.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Setup {
    /// Building the graph, differentiating it, and recording.
    pub record: f64,
    /// Planning its memory.
    pub plan: f64,
    /// From the recording to the program, including planning: pipelines, buffers, bind groups.
    pub prepare: f64,
}

/// A step with weights and inputs, ready to run.
#[derive(Debug)]
pub struct Step {
    /// The program.
    pub program: Program,
    /// The tokens of a run.
    pub tokens: usize,
    /// The times of the preparation.
    pub setup: Setup,
    reads: Option<&'static str>,
}

/// A GPT-2 without dropout, with tied embeddings.
///
/// # Errors
/// [`Error::Format`] if the sizes do not fit together.
pub fn gpt(layers: usize, d_model: usize, heads: usize, positions: usize, vocabulary: usize) -> Result<Arc<dyn Model>> {
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": positions, "n_embd": d_model, "n_layer": layers,
        "n_head": heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
    });
    Ok(models::model(&Config::new("the benchmark's model", config)?)?.into())
}

/// The graph of a step. Training, evaluating and the forward pass are those of the task that the model was made for.
///
/// # Errors
/// [`Error::Input`] if the model has no such step; those of the model and the ops.
pub fn step_graph(
    kind: StepKind,
    caps: &Caps,
    model: &Arc<dyn Model>,
    storage: &Storage,
    size: StepSize,
) -> Result<Graph> {
    let StepSize { batch, length } = size;
    let limits = GenerateLimits { batch, max_tokens: length };
    let task = || TaskObjective::new(model.clone(), batch, length);
    let no = |what: &str, steps: &str| Error::input("step", format!("the model has no {what}; its steps are {steps}"));
    let decoder = || model.decoder().ok_or_else(|| no("decoder", "train, eval, forward, encode"));
    let mut g = Graph::with_storage(storage);
    match kind {
        StepKind::Train => {
            let task = task()?;
            return training(&task, storage, caps)?.graph(Part::Whole, |g| task.loss_and_stats(g));
        }
        StepKind::Evaluate => {
            let loss = task()?.loss(&mut g, false)?;
            g.output("loss", loss)?;
        }
        StepKind::Forward => task()?.outputs(&mut g)?,
        StepKind::Encode => match (model.encoder(), model.decoder()) {
            (None, _) => return Err(no("encoder", "train, eval, forward, prefill, decode")),
            (Some(_), Some(decoder)) => return Generator::encode_graph(decoder, storage, limits, length),
            (Some(encoder), None) => {
                let ids = g.input("input_ids", [batch, length], DType::U32)?;
                let inputs = TokenInputs::new(&mut g, ids)?;
                let states = encoder.encode(&mut g, &inputs)?.states;
                g.output("last_hidden_state", states)?;
            }
        },
        StepKind::Prefill => {
            let prompt = prompt(model.as_ref(), length);
            return Generator::prefill_graph(decoder()?, storage, limits, prompt, TokenPick::Draw { edits: 0 });
        }
        StepKind::Decode => {
            return Generator::decode_graph(decoder()?, storage, limits, TokenPick::Draw { edits: 0 });
        }
    }
    Ok(g)
}

/// The tokens that a decoder reads at first: a prompt, or what answers to an encoder's text begin with.
fn prompt(model: &dyn Model, length: usize) -> usize {
    if model.encoder().is_some() { 1 } else { length }
}

fn training(task: &TaskObjective, storage: &Storage, caps: &Caps) -> Result<TrainStep> {
    let rates = task.frozen().into_iter().map(|name| (name, 0.0)).collect();
    TrainStep::new(&task.parameters(storage)?, caps, StepOptions { rates, ..StepOptions::default() })
}

impl Step {
    /// Prepares a step, with new weights of the given storage types and random tokens.
    ///
    /// # Errors
    /// Those of the model; [`Error::OutOfMemory`]; [`Error::Shader`].
    pub fn prepare(
        gpu: &Gpu,
        kind: StepKind,
        model: &Arc<dyn Model>,
        storage: &Storage,
        size: StepSize,
    ) -> Result<Self> {
        let weights = Weights::stored_as(gpu, storage.clone());
        model.initialise(&weights, 1)?;
        if kind == StepKind::Train {
            let task = TaskObjective::new(model.clone(), size.batch, size.length)?;
            training(&task, storage, gpu.caps())?.layout().move_into_flat(&weights)?;
        }
        let (recording, record) = timed(|| Program::record(gpu, &step_graph(kind, gpu.caps(), model, storage, size)?))?;
        let (_, plan) = timed(|| Plan::new(&recording, gpu.caps()))?;
        let (program, prepare) = timed(|| Program::prepare(gpu, recording, &weights))?;
        let reads = match kind {
            StepKind::Train => Some(REPORT),
            StepKind::Evaluate => Some("loss"),
            StepKind::Prefill | StepKind::Decode => Some("tokens"),
            StepKind::Forward | StepKind::Encode => None,
        };
        let tokens = size.batch
            * match kind {
                StepKind::Decode => 1,
                StepKind::Prefill => prompt(model.as_ref(), size.length),
                _ => size.length,
            };
        let step = Self { program, tokens, setup: Setup { record, plan, prepare }, reads };
        step.feed(kind, size)?;
        Ok(step)
    }

    /// Writes the inputs that the recording has: random tokens and labels, positions in the middle of the cache, the optimiser's
    /// scalars.
    fn feed(&self, kind: StepKind, size: StepSize) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        // A cache of one token has one.
        let half = (size.length / 2).min(size.length - 1) as u32;
        for slot in &self.program.recording().slots {
            let Source::Input(name) = &slot.source else { continue };
            let count = slot.ty.shape.numel();
            let words: Vec<u32> = match name.as_str() {
                SCALARS => StepOptions::default().scalars(1e-3).to_array().map(f32::to_bits).to_vec(),
                DROPOUT_SEED => vec![1; count],
                "positions" => vec![half; count],
                "lengths" if kind == StepKind::Decode => vec![half + 1; count],
                "lengths" | "source_lengths" => vec![size.length as u32; count],
                "last" => (1..=count).map(|row| (row * self.tokens / size.batch) as u32 - 1).collect(),
                // Tokens and classes, and numbers that a regression has to find.
                _ => {
                    (0..count).map(|_| slot.below.map_or(0, |below| rng.random_range(0..below.max(1) as u32))).collect()
                }
            };
            self.program.write(name, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Runs once and waits for the result of a caller: the report of a training step, the tokens of generation.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn run(&self) -> Result<()> {
        let outputs: Vec<&str> = self.reads.into_iter().collect();
        for readback in self.program.run_reading(&outputs)? {
            readback.wait()?;
        }
        self.program.gpu().wait(None)
    }
}

/// The result of `work`, and its seconds.
pub(super) fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    Ok((work()?, start.elapsed().as_secs_f64()))
}
