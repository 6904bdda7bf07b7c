//! Arguments of `wgformer train`.

use super::{Common, LoraArgs, ModelArgs, MorInit, NEW_MODEL_OPTIONS, Storage, TaskArgs};
use crate::cli::numbers::{count, learning_rate, minutes, not_negative, positive, rate, share, small_count_from_1};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Shapes of a learning-rate schedule.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum ScheduleKind {
    /// The same rate throughout
    Constant,
    /// Half a cosine down to the final rate
    Cosine,
    /// A straight line down to the final rate
    Linear,
    /// Warm-up, stable, decay over the last fifth
    Wsd,
}

/// What is a text of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Unit {
    /// Each line
    Lines,
    /// Lines up to an empty one
    Paragraphs,
    /// Each file
    Files,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TrainArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// Text files to train on, or pipes (/dev/stdin), with --task files of examples; a tenth is held out
    #[arg(long, value_name = "FILE", required_unless_present = "resume", num_args = 1..)]
    pub(in crate::cli) data: Vec<PathBuf>,
    /// Train on texts, not on windows of one: several side by side in a sequence, each of them for itself
    #[arg(long, value_enum, value_name = "UNIT")]
    pub(in crate::cli) pack: Option<Unit>,
    /// Train on texts, each in a sequence of its own: batches of texts of like length, in up to six sizes
    #[arg(long, value_enum, value_name = "UNIT", conflicts_with = "pack")]
    pub(in crate::cli) bucket: Option<Unit>,
    /// Folder for checkpoints, the loss curve and the finished model
    #[arg(long, value_name = "DIR", default_value = "runs/gpt")]
    pub(in crate::cli) out: PathBuf,
    /// Tokenizer: bytes, chars, bpe:SIZE (trained on the text) or a tokenizer.json
    #[arg(long, default_value = "bpe:1024")]
    pub(in crate::cli) tokenizer: String,
    /// Start from the weights of a Hugging Face folder; with --mor, from those of a llama
    #[arg(long, value_name = "DIR", conflicts_with_all = NEW_MODEL_OPTIONS)]
    pub(in crate::cli) from: Option<PathBuf>,
    /// With --mor and --from: the initial weights of recursive layers [default: stepwise]
    #[arg(long, value_enum, requires_all = ["mor", "from"])]
    pub(in crate::cli) mor_init: Option<MorInit>,
    #[command(flatten)]
    pub(in crate::cli) lora: LoraArgs,
    #[command(flatten)]
    pub(in crate::cli) task: TaskArgs,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(in crate::cli) batch: usize,
    /// Training steps
    #[arg(long, default_value_t = 1000, value_parser = count)]
    pub(in crate::cli) steps: u64,
    /// Save and stop after this many minutes
    #[arg(long, value_parser = minutes)]
    pub(in crate::cli) minutes: Option<f64>,
    /// Highest learning rate [default: 2e-3; with --task and --from 5e-5, with --lora too 5e-4]
    #[arg(long, value_parser = learning_rate)]
    pub(in crate::cli) lr: Option<f64>,
    /// Schedule of the learning rate
    #[arg(long, value_enum, default_value = "cosine")]
    pub(in crate::cli) schedule: ScheduleKind,
    /// Steps of linear warm-up [default: 50, or all steps if there are fewer]
    #[arg(long, value_parser = count)]
    pub(in crate::cli) warmup: Option<u64>,
    /// Final learning rate as a share of the highest (cosine, linear, wsd) [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(in crate::cli) final_lr: Option<f64>,
    /// Decoupled weight decay; gains and biases do not decay
    #[arg(long, default_value_t = 0.1, value_parser = not_negative)]
    pub(in crate::cli) weight_decay: f64,
    /// Clip gradients to this global norm; 0 disables clipping
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    pub(in crate::cli) clip: f64,
    /// Dropout rate of attention probabilities and, in a gpt2, of embeddings and residuals
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    pub(in crate::cli) dropout: f64,
    /// Batches whose gradients are accumulated before a step
    #[arg(long, default_value_t = 1, value_parser = small_count_from_1)]
    pub(in crate::cli) accumulate: u32,
    /// Recompute activations in the backward pass instead of keeping them
    #[arg(long)]
    pub(in crate::cli) recompute: bool,
    /// Storage type of weights in the forward and backward pass
    #[arg(long, value_enum, default_value = "f32")]
    pub(in crate::cli) dtype: Storage,
    /// Random seed
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(in crate::cli) seed: u64,
    /// Steps between evaluations on held-out text; 0 for none
    #[arg(long, default_value_t = 100, value_parser = count)]
    pub(in crate::cli) eval_every: u64,
    /// Stop when the held-out loss, or the task's metric, has not improved for this many evaluations (--eval-every)
    #[arg(long, value_parser = small_count_from_1)]
    pub(in crate::cli) patience: Option<u32>,
    /// Steps between checkpoints; 0 saves only one at the end
    #[arg(long, default_value_t = 200, value_parser = count)]
    pub(in crate::cli) checkpoint_every: u64,
    /// Continue from the newest checkpoint in the output folder; options that are not given now keep the run's values
    #[arg(long)]
    pub(in crate::cli) resume: bool,
}
