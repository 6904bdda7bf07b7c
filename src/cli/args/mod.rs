//! The arguments of the `wgformer` command.

mod apply;
mod lora;
mod measure;
mod model;
mod search;
#[cfg(feature = "serve")]
mod serve;
mod step;
mod task;
mod text;
mod train;

pub(super) use apply::{
    AnswerArgs, ApplyArgs, ClassifyArgs, CorefArgs, EmbedArgs, FillArgs, RunArgs, ScoreArgs, TagArgs, VectorArgs,
    WriteArgs,
};
pub(super) use lora::{ConvertArgs, LoraArgs};
pub(super) use measure::{BenchArgs, CheckArgs, CheckMode, ExperimentArgs, Subject};
pub(super) use model::{CacheStorage, Family, InferenceStorage, ModelArgs, MorInit, Sides, Storage};
pub(super) use search::SearchArgs;
#[cfg(feature = "serve")]
pub(super) use serve::ServeArgs;
pub(super) use step::{InspectArgs, ProfileArgs, StepArgs, StepName};
pub(super) use task::{ExampleArgs, TaskArgs, TaskName};
pub(super) use text::{Bos, ChatArgs, EvalArgs, GenerateArgs};
pub(super) use train::{ScheduleKind, TrainArgs, Unit};

use crate::gpu::AdapterClass;
use crate::models::Family as Registered;
use crate::models::FamilySides::{self, Any, Both, Decoder, Encoder};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

/// Options that define a new model. A model that is loaded brings its own values.
pub(super) const NEW_MODEL_OPTIONS: [&str; 7] =
    ["model", "layers", "heads", "kv_heads", "width", "dropout", "tokenizer"];

/// Transformers on any GPU: train, generate, evaluate, inspect.
#[derive(Debug, Parser)]
#[command(name = "wgformer", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

/// The command line. A negative number counts as the value of the preceding option, whose parser then reports the allowed range.
pub(super) fn command() -> clap::Command {
    let with_value = |arg: clap::Arg| match arg.is_positional() || !arg.get_action().takes_values() {
        true => arg,
        false => arg.allow_negative_numbers(true),
    };
    let command = Cli::command().mut_subcommands(|subcommand| subcommand.mut_args(with_value));
    let all = [Encoder, Decoder, Both, Any];
    let families = |what: &str, sides: &[FamilySides]| format!("{what}: {}", Registered::names(sides));
    [
        ("train", families("Families of models for --from", &all)),
        ("generate", families("Families of models", &[Decoder, Both, Any])),
        ("eval", families("Families of models", &all)),
        ("inspect", families("Families of models", &all)),
        ("profile", families("Families of models", &all)),
    ]
    .into_iter()
    .fold(command, |command, (name, families)| {
        command.mut_subcommand(name, |subcommand| subcommand.after_help(families))
    })
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the adapters of this machine and their capabilities
    Devices(DevicesArgs),
    /// Train a model on text, from scratch, from a checkpoint or from a Hugging Face folder
    Train(Box<TrainArgs>),
    /// Continue a prompt
    Generate(GenerateArgs),
    /// Talk with a model that was trained for conversations
    Chat(ChatArgs),
    /// Answer requests of OpenAI's API over HTTP
    #[cfg(feature = "serve")]
    Serve(Box<ServeArgs>),
    /// Find the classes of texts
    Classify(ClassifyArgs),
    /// Find the labelled parts of texts, as names
    Tag(TagArgs),
    /// Answer questions about texts
    Answer(AnswerArgs),
    /// Find which mentions in texts are of the same person or thing
    Coref(CorefArgs),
    /// Turn texts into vectors, near each other for texts of like meaning
    Embed(EmbedArgs),
    /// Find the words behind masks
    Fill(FillArgs),
    /// Write texts in another language
    Translate(WriteArgs),
    /// Write shorter texts; long ones are read by parts
    #[command(visible_alias = "summarize")]
    Summarise(WriteArgs),
    /// Write texts without their mistakes
    Correct(WriteArgs),
    /// Write the texts that a model was trained to make of others
    Transform(WriteArgs),
    /// Say how likely each text is: its perplexity
    Score(ScoreArgs),
    /// Find the passages of files that are nearest in meaning to a query
    Search(SearchArgs),
    /// Do with texts what the model was trained for
    Run(RunArgs),
    /// Measure loss and perplexity of a model on text, or the metrics of its task on examples
    Eval(EvalArgs),
    /// Save a model as a Hugging Face folder, its adapter merged into it
    Convert(ConvertArgs),
    /// Show the dispatches, FLOPs, bytes and memory plan of a step of a model
    Inspect(InspectArgs),
    /// Run a step of a model and show its time by kernel and by layer, or write a trace
    Profile(ProfileArgs),
    /// Measure the adapter's ceilings, and kernels and whole steps as a share of them
    Bench(BenchArgs),
    /// Check that adapters compute right: every kernel, forward and backward, against f64; models and training runs against PyTorch
    Check(CheckArgs),
    /// Train variants of a model on the same text, and compare their loss by operations, parameters and time
    Experiment(ExperimentArgs),
}

/// Options of most subcommands: where to run and how to print.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Common {
    /// Adapter: its number in `wgformer devices`, part of its name, backend (vulkan, gl, metal, dx12) or backend:name
    /// [default: $WGFORMER_ADAPTER, else the best]
    #[arg(long, value_name = "ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Choose kernels as for a GPU or as for a CPU driver [default: detected by the driver's name]
    #[arg(long = "as", value_enum, value_name = "CLASS")]
    pub(super) class: Option<Class>,
    /// Multiply matrices on the GPU's matrix units, if it has some: faster, with factors rounded to f16 (experimental)
    #[arg(long)]
    pub(super) matrix_units: bool,
    /// Time the variants of kernels first and run the fastest; the results are saved for later commands
    #[arg(long, value_enum, default_value = "off")]
    pub(super) tune: Tune,
    /// Print JSON for programs instead of text for people
    #[arg(long)]
    pub(super) json: bool,
}

/// The class of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Class {
    /// A graphics processor
    Gpu,
    /// A CPU driver
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Tune {
    /// None: the defaults for this kind of adapter, which are the same on every run
    #[default]
    Off,
    /// 2 seconds for each part of a new model
    Fast,
    /// 2 minutes
    Full,
}

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    /// Mark the adapter that this would choose: its number, part of its name, backend or backend:name [default: $WGFORMER_ADAPTER, else the
    /// best]
    #[arg(long, value_name = "ADAPTER")]
    pub(super) adapter: Option<String>,
    /// Print JSON for programs instead of text for people
    #[arg(long)]
    pub(super) json: bool,
}
