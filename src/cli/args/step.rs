//! Arguments of `wgformer inspect` and `wgformer profile`: a step of a model.

use super::{Common, ModelArgs};
use crate::bench::StepKind;
use crate::cli::numbers::positive;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Steps that can be inspected and profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum StepName {
    /// Forward, backward, clipping, AdamW
    Train,
    /// Forward and loss
    Eval,
    /// Forward, up to the outputs of the model's task
    Forward,
    /// Read a text with the encoder
    Encode,
    /// Read a prompt into the caches
    Prefill,
    /// One token per sequence, with caches
    Decode,
}

impl From<StepName> for StepKind {
    fn from(name: StepName) -> Self {
        match name {
            StepName::Train => Self::Train,
            StepName::Eval => Self::Evaluate,
            StepName::Forward => Self::Forward,
            StepName::Encode => Self::Encode,
            StepName::Prefill => Self::Prefill,
            StepName::Decode => Self::Decode,
        }
    }
}

/// A model and a step of it.
#[derive(Debug, Args)]
pub(in crate::cli) struct StepArgs {
    /// Folder of a model, its config.json, or a GGUF file [default: a new model of the given size]
    #[arg(value_name = "MODEL", conflicts_with_all = ["model", "layers", "heads", "kv_heads", "width", "moe", "mor", "vocabulary"])]
    pub(in crate::cli) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    /// Vocabulary of a new model
    #[arg(long, default_value_t = 1024, value_parser = positive)]
    pub(in crate::cli) vocabulary: usize,
    /// The kind of step
    #[arg(long, value_enum, default_value = "train")]
    pub(in crate::cli) step: StepName,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(in crate::cli) batch: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    #[command(flatten)]
    pub(in crate::cli) step: StepArgs,
    /// List every dispatch
    #[arg(long)]
    pub(in crate::cli) list: bool,
    /// Show the expert or recursion depth of each token of a text instead: the text, or a file
    #[arg(long, value_name = "TEXT|FILE", group = "shown", conflicts_with_all = ["list", "step", "batch", "context"])]
    pub(in crate::cli) routing: Option<String>,
    /// Show what each head looks at in a text instead: the text, or a file
    #[arg(long, value_name = "TEXT|FILE", group = "shown", conflicts_with_all = ["list", "step", "batch", "context"])]
    pub(in crate::cli) attention: Option<String>,
    /// With --attention, what the decoder of a model of two sides reads; without it the encoder is shown
    #[arg(long, value_name = "TEXT", requires = "attention")]
    pub(in crate::cli) answer: Option<String>,
    /// With --routing or --attention, write an HTML page: tokens coloured by expert or depth, or heads and tokens with their probabilities
    #[arg(long, value_name = "FILE", requires = "shown")]
    pub(in crate::cli) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ProfileArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    #[command(flatten)]
    pub(in crate::cli) step: StepArgs,
    /// Number of runs; each launch's median time is reported
    #[arg(long, default_value_t = 5, value_parser = positive)]
    pub(in crate::cli) runs: usize,
    /// Write a trace for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) trace: Option<PathBuf>,
}
