//! Arguments of `wgformer experiment`, `wgformer bench` and `wgformer check`.

use super::Common;
use crate::cli::numbers::{count_from_1, learning_rate, positive, ratio};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// The subject of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Subject {
    /// Mixtures of experts against dense models
    Experts,
    /// Mixtures of recursions against plain recursion and the unrolled model
    Recursions,
    /// Recursion on nested expressions (ListOps) deeper than in training, with and without a tree mask; needs no text
    Nesting,
}

impl Subject {
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::Experts => "experts",
            Self::Recursions => "recursions",
            Self::Nesting => "nesting",
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExperimentArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The subject of the comparison
    #[arg(value_enum)]
    pub(in crate::cli) subject: Subject,
    /// Text files to train on; a tenth of the text is held out
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(in crate::cli) data: Vec<PathBuf>,
    /// Folder for results and charts
    #[arg(long, value_name = "DIR", default_value = "runs/experiments")]
    pub(in crate::cli) out: PathBuf,
    /// Number of seeds, from 0 on
    #[arg(long, default_value_t = 3, value_parser = count_from_1)]
    pub(in crate::cli) seeds: u64,
    /// Training steps
    #[arg(long, default_value_t = 400, value_parser = count_from_1)]
    pub(in crate::cli) steps: u64,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(in crate::cli) batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub(in crate::cli) length: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 3e-3, value_parser = learning_rate)]
    pub(in crate::cli) lr: f64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct BenchArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// Finish in less than half a minute even on a CPU driver: few rows, few runs, a small model
    #[arg(long)]
    pub(in crate::cli) quick: bool,
    /// Only rows whose name contains this
    #[arg(long, value_name = "PATTERN")]
    pub(in crate::cli) only: Option<String>,
    /// Also measure how a training step grows with length and d_model, which takes minutes
    #[arg(long)]
    pub(in crate::cli) scaling: bool,
    /// Write an HTML page with charts
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Compare with an older report of `bench --json`, and exit with 1 if something got slower. Shares of the ceilings are compared, which are
    /// measured next to each run, so that a slower or busier machine does not look like slower code
    #[arg(long, value_name = "OLD.json")]
    pub(in crate::cli) compare: Option<PathBuf>,
    /// The ratio above which a row counts as slower
    #[arg(long, value_name = "RATIO", default_value_t = 1.25, value_parser = ratio, requires = "compare")]
    pub(in crate::cli) threshold: f64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// A choice of cases that launches each kernel, on the best adapter, in less than a minute. Without it all cases run in all variants of
    /// their kernels, on all adapters, which takes minutes for each
    #[arg(long)]
    pub(in crate::cli) quick: bool,
    /// What is done with the cases: outputs compared, gradients compared, times taken, or only looked up what the adapter has
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["test", "grad"])]
    pub(in crate::cli) mode: Vec<CheckMode>,
    /// Only cases of these ops
    #[arg(long, value_name = "OP", value_delimiter = ',')]
    pub(in crate::cli) op: Vec<String>,
    /// Only the case of this name, or, if there is none, those with this text in their names
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) case: Option<String>,
    /// Seed of the inputs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(in crate::cli) seed: u64,
    /// Write the report as a page
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Write the report as tables in Markdown
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) markdown: Option<PathBuf>,
    /// Known failures in JSON, besides those that come with wgformer: a list of objects of adapter, backend, driver, from, below (versions of
    /// the driver), case, message, link. One that passes fails the run
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) known: Option<PathBuf>,
    /// Run nothing: make one report out of those that --json wrote
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["quick", "golden", "trajectory"])]
    pub(in crate::cli) merge: Vec<PathBuf>,
    /// Instead of cases: folders with config.json, model.safetensors, golden.safetensors and, for decoders, generated.safetensors: compare
    /// outputs, loss, gradients and greedy tokens
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "quick")]
    pub(in crate::cli) golden: Vec<PathBuf>,
    /// Instead of cases: folders with trajectory.json and trajectory.safetensors: repeat these training runs, and compare losses, gradient norms, weights and
    /// AdamW's moments
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with = "quick")]
    pub(in crate::cli) trajectory: Vec<PathBuf>,
    /// Folder with the models from which trajectories start [default: the folder goldens next to the trajectory's parent folder]
    #[arg(long, value_name = "DIR", requires = "trajectory")]
    pub(in crate::cli) goldens: Option<PathBuf>,
}

/// What is done with the cases of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CheckMode {
    /// Compare outputs with the same computed in f64
    Test,
    /// Compare gradients with the same computed in f64, and these with finite differences
    Grad,
    /// Measure the time of each case
    Perf,
    /// List what the adapter can run, and run nothing
    Support,
}
