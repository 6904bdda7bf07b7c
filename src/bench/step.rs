//! Whole steps of a decoder on random tokens, for the benchmark and the profiler.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::generate::{GenerateLimits, Generator};
use crate::gpu::Gpu;
use crate::graph::{Graph, Storage};
use crate::io::Config;
use crate::kernel::Caps;
use crate::models::{self, Decoder, TokenInputs};
use crate::ops::CrossEntropyOptions;
use crate::program::{Plan, Program, Source, Weights};
use crate::train::{
    DROPOUT_SEED, IDS, LABELS, LanguageModel, Objective, Part, REPORT, SCALARS, StepOptions, TrainStep,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::sync::Arc;
use web_time::Instant;

/// The kinds of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Forward, backward, clipping, AdamW.
    Train,
    /// Forward and loss.
    Evaluate,
    /// Forward up to the logits of every token.
    Forward,
    /// Reading a prompt into the caches, up to the logits of its last token.
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
pub fn gpt(layers: usize, width: usize, heads: usize, positions: usize, vocabulary: usize) -> Result<Arc<dyn Decoder>> {
    let config = json!({
        "model_type": "gpt2", "vocab_size": vocabulary, "n_positions": positions, "n_embd": width, "n_layer": layers,
        "n_head": heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true,
        "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0,
    });
    Ok(models::decoder(&Config::new("the benchmark's model", config)?)?.into())
}

/// The graph of a step.
///
/// # Errors
/// Those of the model and the ops.
pub fn step_graph(
    kind: StepKind,
    caps: &Caps,
    model: &Arc<dyn Decoder>,
    storage: &Storage,
    size: StepSize,
) -> Result<Graph> {
    let StepSize { batch, length } = size;
    let limits = GenerateLimits { batch, max_tokens: length };
    let mut g = Graph::with_storage(storage);
    match kind {
        StepKind::Train => {
            let objective = objective(model, size);
            return training(model, storage, caps)?.graph(Part::Whole, |g| objective.loss_and_stats(g));
        }
        StepKind::Evaluate => {
            let loss = objective(model, size).loss(&mut g, false)?;
            g.output("loss", loss)?;
        }
        StepKind::Forward => {
            let ids = g.input(IDS, [batch, length], DType::U32)?;
            let inputs = TokenInputs::new(&mut g, ids)?;
            let hidden = model.decode(&mut g, &inputs)?.states;
            let logits = model.logits(&mut g, hidden)?;
            g.output("logits", logits)?;
        }
        StepKind::Prefill => return Generator::prefill_graph(model.as_ref(), storage, limits, length),
        StepKind::Decode => return Generator::decode_graph(model.as_ref(), storage, limits),
    }
    Ok(g)
}

fn objective(model: &Arc<dyn Decoder>, size: StepSize) -> LanguageModel {
    let options = CrossEntropyOptions::default();
    LanguageModel { model: model.clone(), rows: size.batch, length: size.length, options }
}

fn training(model: &Arc<dyn Decoder>, storage: &Storage, caps: &Caps) -> Result<TrainStep> {
    TrainStep::new(&model.parameters_in(storage)?, caps, StepOptions::default())
}

impl Step {
    /// Prepares a step, with new weights of the given storage types and random tokens.
    ///
    /// # Errors
    /// Those of the model; [`Error::OutOfMemory`]; [`Error::Shader`].
    pub fn prepare(
        gpu: &Gpu,
        kind: StepKind,
        model: &Arc<dyn Decoder>,
        storage: &Storage,
        size: StepSize,
    ) -> Result<Self> {
        let weights = Weights::stored_as(gpu, storage.clone());
        model.initialise(&weights, 1)?;
        if kind == StepKind::Train {
            training(model, storage, gpu.caps())?.layout().move_into_flat(&weights)?;
        }
        let (recording, record) = timed(|| Program::record(gpu, &step_graph(kind, gpu.caps(), model, storage, size)?))?;
        let (_, plan) = timed(|| Plan::new(&recording, gpu.caps()))?;
        let (program, prepare) = timed(|| Program::prepare(gpu, recording, &weights))?;
        let reads = match kind {
            StepKind::Train => Some(REPORT),
            StepKind::Evaluate => Some("loss"),
            StepKind::Prefill | StepKind::Decode => Some("logits"),
            StepKind::Forward => None,
        };
        let tokens = size.batch * if kind == StepKind::Decode { 1 } else { size.length };
        let step = Self { program, tokens, setup: Setup { record, plan, prepare }, reads };
        step.feed(model.dimensions().vocabulary, size)?;
        Ok(step)
    }

    /// Writes the inputs of the recording: random tokens, positions in the middle of the cache, the optimiser's scalars.
    fn feed(&self, vocabulary: usize, size: StepSize) -> Result<()> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let half = (size.length / 2) as u32;
        for slot in &self.program.recording().slots {
            let Source::Input(name) = &slot.source else { continue };
            let count = slot.ty.shape.numel();
            let words: Vec<u32> = match name.as_str() {
                IDS | LABELS => (0..count).map(|_| rng.random_range(0..vocabulary.max(1) as u32)).collect(),
                "positions" => vec![half; count],
                "lengths" => vec![half + 1; count],
                "last" => (1..=count).map(|row| (row * size.length) as u32 - 1).collect(),
                DROPOUT_SEED => vec![1; count],
                SCALARS => StepOptions::default().scalars(1e-3).to_array().map(f32::to_bits).to_vec(),
                other => return Err(Error::Graph(format!("the benchmark does not know the input \"{other}\""))),
            };
            self.program.write(name, bytemuck::cast_slice(&words))?;
        }
        Ok(())
    }

    /// Runs once and waits for the result of a caller: the report of a training step, the logits of generation.
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
