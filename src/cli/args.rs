//! The arguments of the `wgformer` command.

use super::numbers::{
    count, count_from_1, learning_rate, min_p, minutes, not_negative, penalty, positive, rate, ratio, share,
    small_count_from_1, stop, temperature, top_k, top_p,
};
use crate::DType;
use crate::bench::StepKind;
use crate::gpu::AdapterClass;
use crate::models::FamilySides::{self, Any, Both, Decoder, Encoder};
use crate::models::{self, LayerInit};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What says how a new model is made: a model that is there brings it along.
pub(super) const OF_A_NEW_MODEL: [&str; 7] = ["model", "layers", "heads", "kv_heads", "width", "dropout", "tokenizer"];

/// Transformers on any GPU: train, generate, evaluate, inspect.
#[derive(Debug, Parser)]
#[command(name = "wgformer", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The command line. A negative number is the value of the option in front of it, which then says what it allows.
pub(super) fn command() -> clap::Command {
    let with_value = |arg: clap::Arg| match arg.is_positional() || !arg.get_action().takes_values() {
        true => arg,
        false => arg.allow_negative_numbers(true),
    };
    let command = Cli::command().mut_subcommands(|subcommand| subcommand.mut_args(with_value));
    let read = |what: &str, sides: &[FamilySides]| format!("{what}: {}", models::Family::names(sides));
    [
        ("train", read("Families of models to go on from (--from)", &[Encoder, Decoder, Both, Any])),
        ("generate", read("Families of models", &[Decoder, Both, Any])),
        ("inspect", read("Families of models", &[Decoder, Any])),
    ]
    .into_iter()
    .fold(command, |command, (name, families)| command.mut_subcommand(name, |of| of.after_help(families)))
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the adapters of this machine and what they can do
    Devices(DevicesArgs),
    /// Train a model on text, from scratch, from a checkpoint or from a Hugging Face folder
    Train(Box<TrainArgs>),
    /// Continue a prompt
    Generate(GenerateArgs),
    /// Loss and perplexity of a model on text
    Eval(EvalArgs),
    /// Show what a step of a model does: dispatches, FLOPs, bytes, memory plan
    Inspect(InspectArgs),
    /// Run a step of a model and show where the time goes: by kernel, by layer, as a trace
    Profile(ProfileArgs),
    /// Measure the adapter's ceilings, and how close kernels and whole steps come
    Bench(BenchArgs),
    /// Compare models, and how they train, with what PyTorch computed from them
    Check(CheckArgs),
    /// Train models that differ in one thing on the same text, and compare loss by operations, parameters and time
    Experiment(ExperimentArgs),
}

/// Where to run and how to print: options that most subcommands take.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Adapter: its number in `wgformer devices`, part of its name, backend (vulkan, gl, metal, dx12) or backend:name
    /// [default: $WGFORMER_ADAPTER, else the best]
    #[arg(long, value_name = "ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Choose kernels as for a GPU, or as for a driver that computes on the CPU [default: what the driver is, by its name]
    #[arg(long = "as", value_enum, value_name = "CLASS")]
    pub(super) class: Option<Class>,
    /// Time the variants of kernels first and run the fastest; choices are kept for the next command
    #[arg(long, value_enum, default_value = "off")]
    pub(super) tune: Tune,
    /// Print JSON for programs instead of text for people
    #[arg(long)]
    pub(super) json: bool,
}

/// What an adapter is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Class {
    /// A graphics processor
    Gpu,
    /// A driver that computes on the CPU
    Cpu,
}

impl From<Class> for AdapterClass {
    fn from(class: Class) -> Self {
        match class {
            Class::Gpu => Self::Gpu,
            Class::Cpu => Self::Cpu,
        }
    }
}

/// How much time the tuner may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tune {
    /// None: the defaults for this kind of adapter, which are the same on every run
    Off,
    /// 2 seconds for each part of a new model
    Fast,
    /// 2 minutes
    Full,
}

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// Which one would be used: its number, part of its name, backend or backend:name [default: $WGFORMER_ADAPTER, else the best]
    #[arg(long, value_name = "ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Print JSON for programs instead of text for people
    #[arg(long)]
    pub(super) json: bool,
}

/// Model families that can be trained from scratch.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Family {
    /// Learned positions, layer norm, GELU
    Gpt2,
    /// Rotary positions, RMS norm, gated SiLU
    Llama,
    /// Sinusoidal positions, layer norm behind each sum, ReLU: the original, with --sides
    Transformer,
}

/// The sides of a transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sides {
    /// Reads a text as a whole, and learns the words behind masks
    Encoder,
    /// Continues a text, and learns each next word
    Decoder,
    /// An encoder reads the first half of a row, a decoder learns the second
    Both,
}

/// Shapes of a learning-rate schedule.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ScheduleKind {
    /// The same rate throughout
    Constant,
    /// Half a cosine down to the final rate
    Cosine,
    /// A straight line down to the final rate
    Linear,
    /// Warm-up, stable, decay over the last fifth
    Wsd,
}

/// Element types that weights can be stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Storage {
    /// 32-bit float
    F32,
    /// 16-bit IEEE float; training keeps f32 masters and scales the loss
    F16,
    /// 16-bit brain float; training keeps f32 masters
    Bf16,
}

impl From<Storage> for DType {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Self::F32,
            Storage::F16 => Self::F16,
            Storage::Bf16 => Self::BF16,
        }
    }
}

/// Element types that weights can be held in where nothing is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Holding {
    /// 32-bit float
    F32,
    /// 16-bit IEEE float
    F16,
    /// 16-bit brain float
    Bf16,
    /// Blocks of 32 in 8 bits with a scale
    #[value(name = "q8_0")]
    Q8_0,
    /// Blocks of 32 in 4 bits with a scale
    #[value(name = "q4_0")]
    Q4_0,
    /// Blocks of 32 in 4 bits with a scale and an offset
    #[value(name = "q4_1")]
    Q4_1,
}

impl From<Holding> for DType {
    fn from(holding: Holding) -> Self {
        match holding {
            Holding::F32 => Self::F32,
            Holding::F16 => Self::F16,
            Holding::Bf16 => Self::BF16,
            Holding::Q8_0 => Self::Q8_0,
            Holding::Q4_0 => Self::Q4_0,
            Holding::Q4_1 => Self::Q4_1,
        }
    }
}

/// What layers that recur start from, where a trained model is turned into one that recurs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MorInit {
    /// Layers at even intervals, the first and the last among them
    Stepwise,
    /// The mean of the layers that become one
    Average,
    /// The first layers
    Lower,
}

impl From<MorInit> for LayerInit {
    fn from(init: MorInit) -> Self {
        match init {
            MorInit::Stepwise => Self::Stepwise,
            MorInit::Average => Self::Average,
            MorInit::Lower => Self::Lower,
        }
    }
}

/// The size of a new model.
#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// Model family [default: gpt2; llama with --moe or --mor; transformer with --sides]
    #[arg(long, value_enum)]
    pub(super) model: Option<Family>,
    /// The sides of a transformer [default: decoder]
    #[arg(long, value_enum)]
    pub(super) sides: Option<Sides>,
    /// Blocks
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub(super) layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 4, value_parser = positive)]
    pub(super) heads: usize,
    /// Heads of keys and values (llama) [default: as many as heads]
    #[arg(long, value_parser = positive)]
    pub(super) kv_heads: Option<usize>,
    /// Width of the residual stream
    #[arg(long, default_value_t = 128, value_parser = positive)]
    pub(super) width: usize,
    /// Tokens of context [default: 128, or what the model was made for if that is less]
    #[arg(long, value_parser = positive)]
    pub(super) context: Option<usize>,
    /// Experts in place of feed-forward networks, in a llama or transformer: E:K (K of E for a token), with keys of a config.json behind
    /// commas (8:2,router_aux_loss_coef=0.01), or a JSON file of keys
    #[arg(long, value_name = "E:K|FILE")]
    pub(super) moe: Option<String>,
    /// Layers that recur, in a llama or transformer: R or R:ROUTING (expert_choice, token_choice, none), with keys of a config.json behind
    /// commas (3:token_choice,sharing=cycle), or a JSON file of keys
    #[arg(long, value_name = "R:ROUTING|FILE")]
    pub(super) mor: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Text files to learn from, or pipes (/dev/stdin); a tenth of the text is held out
    #[arg(long, value_name = "FILE", required_unless_present = "resume", num_args = 1..)]
    pub(super) data: Vec<PathBuf>,
    /// Folder for checkpoints, the loss curve and the finished model
    #[arg(long, value_name = "DIR", default_value = "runs/gpt")]
    pub(super) out: PathBuf,
    /// Tokenizer: bytes, chars, bpe:SIZE (trained on the text) or a tokenizer.json
    #[arg(long, default_value = "bpe:1024")]
    pub(super) tokenizer: String,
    /// Start from the weights of a Hugging Face folder instead of new ones; with --mor, from those of a llama
    #[arg(long, value_name = "DIR", conflicts_with_all = OF_A_NEW_MODEL)]
    pub(super) from: Option<PathBuf>,
    /// With --mor and --from: what layers that recur start from [default: stepwise]
    #[arg(long, value_enum, requires_all = ["mor", "from"])]
    pub(super) mor_init: Option<MorInit>,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(super) batch: usize,
    /// Steps of training
    #[arg(long, default_value_t = 1000, value_parser = count)]
    pub(super) steps: u64,
    /// Stop after this many minutes, saving first
    #[arg(long, value_parser = minutes)]
    pub(super) minutes: Option<f64>,
    /// Highest learning rate
    #[arg(long, default_value_t = 2e-3, value_parser = learning_rate)]
    pub(super) lr: f64,
    /// Schedule of the learning rate
    #[arg(long, value_enum, default_value = "cosine")]
    pub(super) schedule: ScheduleKind,
    /// Steps of linear warm-up [default: 50, or all steps if they are fewer]
    #[arg(long, value_parser = count)]
    pub(super) warmup: Option<u64>,
    /// Final learning rate as a share of the highest (cosine, linear, wsd) [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(super) final_lr: Option<f64>,
    /// Decoupled weight decay; gains and biases are spared
    #[arg(long, default_value_t = 0.1, value_parser = not_negative)]
    pub(super) weight_decay: f64,
    /// Clip gradients to this global norm; 0 for never
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    pub(super) clip: f64,
    /// Dropout rate: of attention probabilities and, in a gpt2, of embeddings and residuals
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    pub(super) dropout: f64,
    /// Batches whose gradients are summed before a step
    #[arg(long, default_value_t = 1, value_parser = small_count_from_1)]
    pub(super) accumulate: u32,
    /// Compute activations again in the backward pass instead of keeping them
    #[arg(long)]
    pub(super) recompute: bool,
    /// Element type in which the forward and backward pass read weights
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) dtype: Storage,
    /// Seed of everything random
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(super) seed: u64,
    /// Steps between evaluations on held-out text; 0 for none
    #[arg(long, default_value_t = 100, value_parser = count)]
    pub(super) eval_every: u64,
    /// Stop when this many evaluations in a row (--eval-every) bring nothing better
    #[arg(long, value_parser = small_count_from_1)]
    pub(super) patience: Option<u32>,
    /// Steps between checkpoints; 0 for one at the end only
    #[arg(long, default_value_t = 200, value_parser = count)]
    pub(super) checkpoint_every: u64,
    /// Go on from the newest checkpoint in the output folder, with the options that the run had for all that is not given now
    #[arg(long)]
    pub(super) resume: bool,
}

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// Text to continue, - for standard input; several are continued as one batch [default: what is piped in, else an empty line]
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) prompt: Vec<String>,
    /// File with a text to continue, - for standard input; a line's end at its end is left out
    #[arg(long, value_name = "FILE")]
    pub(super) prompt_file: Vec<PathBuf>,
    /// Put each prompt into the chat template of the model, as a user's message, and print the answer alone
    #[arg(long)]
    pub(super) chat: bool,
    /// With --chat, a message of the system in front
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    pub(super) system: Option<String>,
    /// Tokens to write at most [default: the model's max_new_tokens, else 200]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(super) max_tokens: Option<usize>,
    /// Take the likeliest token each time, whatever the model's file says
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub(super) greedy: bool,
    /// Randomness: below 1 more predictable, above 1 wilder, 0 the likeliest token [default: the model's, else 0.8]
    #[arg(long, value_parser = temperature)]
    pub(super) temperature: Option<f32>,
    /// Choose among this many likeliest tokens; 0: all [default: the model's, else all]
    #[arg(long, value_name = "COUNT", value_parser = top_k)]
    pub(super) top_k: Option<usize>,
    /// Choose among the likeliest tokens that hold this share of the probability; 1: all [default: the model's, else all]
    #[arg(long, value_name = "SHARE", value_parser = top_p)]
    pub(super) top_p: Option<f32>,
    /// Drop tokens below this share of the likeliest one's probability; 0: none [default: the model's, else none]
    #[arg(long, value_name = "SHARE", value_parser = min_p)]
    pub(super) min_p: Option<f32>,
    /// Lower the odds of tokens that were used already by this factor; 1: not [default: the model's, else 1]
    #[arg(long, value_name = "FACTOR", value_parser = penalty)]
    pub(super) repetition_penalty: Option<f32>,
    /// Seed of the choice
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(super) seed: u64,
    /// Stop in front of this text, or of this special token
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop)]
    pub(super) stop: Vec<String>,
    /// Element type to hold matrices in; quantised ones are rounded to the nearest [default: as they are in the file]
    #[arg(long, value_enum)]
    pub(super) dtype: Option<Holding>,
}

/// When windows of a text begin with a BOS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Bos {
    /// Where the tokenizer puts something in front of a text
    Auto,
    /// Also where it does not
    Always,
    /// Nowhere: as `wgformer train` measures on held-out text
    Never,
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The model: a folder, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// Text files to measure on, or pipes (/dev/stdin)
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(super) data: Vec<PathBuf>,
    /// Tokens of context [default: what the model was made for, at most 1024]
    #[arg(long, value_parser = positive)]
    pub(super) context: Option<usize>,
    /// Begin each window with the special tokens that the model was trained to see in front of a text (mostly a BOS)
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) bos: Bos,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(super) batch: usize,
    /// Measure on at most this many batches
    #[arg(long, value_parser = positive)]
    pub(super) batches: Option<usize>,
    /// Element type to hold matrices in; quantised ones are rounded to the nearest [default: as they are in the file]
    #[arg(long, value_enum)]
    pub(super) dtype: Option<Holding>,
}

/// Steps that can be inspected and profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum StepName {
    /// Forward, backward, clipping, AdamW
    Train,
    /// Forward and loss
    Eval,
    /// A prompt read into the caches
    Prefill,
    /// One token with a cache
    Decode,
}

impl From<StepName> for StepKind {
    fn from(name: StepName) -> Self {
        match name {
            StepName::Train => Self::Train,
            StepName::Eval => Self::Evaluate,
            StepName::Prefill => Self::Prefill,
            StepName::Decode => Self::Decode,
        }
    }
}

/// A model and a step of it.
#[derive(Debug, Args)]
pub(super) struct StepArgs {
    /// Folder of a model, its config.json, or a GGUF file [default: a new model of the size given]
    #[arg(value_name = "MODEL", conflicts_with_all = ["model", "layers", "heads", "kv_heads", "width", "moe", "mor", "vocabulary"])]
    pub(super) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// Vocabulary of a new model
    #[arg(long, default_value_t = 1024, value_parser = positive)]
    pub(super) vocabulary: usize,
    /// The step
    #[arg(long, value_enum, default_value = "train")]
    pub(super) step: StepName,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(super) batch: usize,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) step: StepArgs,
    /// List every dispatch
    #[arg(long)]
    pub(super) list: bool,
    /// Show which expert or depth each token of a text took, instead: the text, or a file
    #[arg(long, value_name = "TEXT|FILE", conflicts_with_all = ["list", "step", "batch", "context"])]
    pub(super) routing: Option<String>,
    /// With --routing, write a page with the tokens coloured by where they went
    #[arg(long, value_name = "FILE", requires = "routing")]
    pub(super) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) step: StepArgs,
    /// Runs, of which each launch's median time counts
    #[arg(long, default_value_t = 5, value_parser = positive)]
    pub(super) runs: usize,
    /// Write a trace for Perfetto (ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Option<PathBuf>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Subject {
    /// Mixtures of experts against dense models
    Experts,
    /// Mixtures of recursions against plain recursion and the unrolled model
    Recursions,
    /// Recursion on nested expressions deeper than those learned (ListOps), with and without their tree; needs no text
    Nesting,
}

impl Subject {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Experts => "experts",
            Self::Recursions => "recursions",
            Self::Nesting => "nesting",
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ExperimentArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// What is compared
    #[arg(value_enum)]
    pub(super) subject: Subject,
    /// Text files to learn from; a tenth of the text is held out
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(super) data: Vec<PathBuf>,
    /// Folder for results and pictures
    #[arg(long, value_name = "DIR", default_value = "runs/experiments")]
    pub(super) out: PathBuf,
    /// Seeds, from 0 on
    #[arg(long, default_value_t = 3, value_parser = count_from_1)]
    pub(super) seeds: u64,
    /// Steps of training
    #[arg(long, default_value_t = 400, value_parser = count_from_1)]
    pub(super) steps: u64,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(super) batch: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 64, value_parser = positive)]
    pub(super) length: usize,
    /// Highest learning rate
    #[arg(long, default_value_t = 3e-3, value_parser = learning_rate)]
    pub(super) lr: f64,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Less than half a minute even on a driver for the CPU: few rows, few runs, a small model
    #[arg(long)]
    pub(super) quick: bool,
    /// Only rows whose name contains this
    #[arg(long, value_name = "PATTERN")]
    pub(super) only: Option<String>,
    /// Growth of a training step with length and width as well, which takes minutes
    #[arg(long)]
    pub(super) scaling: bool,
    /// Write a page with pictures
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Compare with an older report of `bench --json`, and exit with 1 if something got slower. What counts is the share of
    /// the ceilings, which are measured beside each run, so that a slower or busier machine is not taken for slower code
    #[arg(long, value_name = "OLD.json")]
    pub(super) compare: Option<PathBuf>,
    /// How many times as long something may take before it counts as slower
    #[arg(long, value_name = "RATIO", default_value_t = 1.25, value_parser = ratio, requires = "compare")]
    pub(super) threshold: f64,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Folders with config.json, model.safetensors, golden.safetensors and, for decoders, generated.safetensors: compares outputs, loss,
    /// gradients and greedy tokens
    #[arg(long, value_name = "DIR", required_unless_present = "trajectory", num_args = 1..)]
    pub(super) golden: Vec<PathBuf>,
    /// Folders with trajectory.json and trajectory.safetensors: trains as they say, and compares losses, gradient norms, weights and
    /// AdamW's moments
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub(super) trajectory: Vec<PathBuf>,
    /// Where the folders of the models are that trajectories begin with [default: the folder goldens beside the one that the
    /// trajectory's folder is in]
    #[arg(long, value_name = "DIR", requires = "trajectory")]
    pub(super) goldens: Option<PathBuf>,
}
