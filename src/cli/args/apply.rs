//! Arguments of the commands that use a model for a task.

use super::{Common, ExampleArgs, InferenceStorage};
use crate::cli::numbers::{beams, length_penalty, positive, share};
use crate::tasks::Pooling;
use crate::tasks::apply::Resolver;
use clap::Args;
use std::path::PathBuf;

/// What all of them share: a model, and texts.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct ApplyArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, or that of a LoRA adapter
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// Files of texts: a text a line, or a table or JSON with a field for it; - for standard input [default: piped input]
    #[arg(value_name = "FILE")]
    pub(in crate::cli) files: Vec<PathBuf>,
    /// A text; may be given several times
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) text: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) examples: ExampleArgs,
    /// The most tokens of a text that are read at a time [default: as in training, else the model's maximum]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ClassifyArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// Classes of your own, for a model of entailment (one that was trained on NLI): no training is needed
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    pub(in crate::cli) labels: Vec<String>,
    /// With --labels, the sentence that is tried for each class; {} stands for it
    #[arg(long, value_name = "TEXT", default_value = "This example is {}.", requires = "labels")]
    pub(in crate::cli) hypothesis: String,
    /// With --labels, each class is judged alone, so that several may hold
    #[arg(long, requires = "labels")]
    pub(in crate::cli) several: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TagArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// Leave out parts of which the model is less sure
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub(in crate::cli) least: f64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct AnswerArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// The question; the texts are what it is about. Without it, files hold questions with their contexts
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) question: Option<String>,
    /// No answer is given if none is likelier than the best by this much, in logits [default: an answer is always given]
    #[arg(long, value_name = "LOGITS", allow_negative_numbers = true)]
    pub(in crate::cli) none_above: Option<f64>,
    /// The most tokens of an answer [default: 30 of a part of the text, 128 of one that is written]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Records may have \"mentions\": [{\"start\": 0, \"end\": 4}, ...] in characters. Without them names (runs of words that begin with a \
                        capital letter) and English pronouns are taken."
)]
pub(in crate::cli) struct CorefArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// Each mention is compared with so many in front of it
    #[arg(long, value_name = "COUNT", default_value_t = Resolver::WINDOW, value_parser = positive)]
    pub(in crate::cli) window: usize,
    /// Show mentions that stand alone, too
    #[arg(long)]
    pub(in crate::cli) alone: bool,
}

/// How texts become vectors.
#[derive(Debug, Default, Args)]
pub(in crate::cli) struct VectorArgs {
    /// Text in front of each text, as E5 wants one ("query: ") [default: the model's]
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) prefix: Option<String>,
    /// Which states become a vector: mean, or cls for that of the first token [default: the model's, else mean]
    #[arg(long, value_name = "WHICH", value_parser = pooling)]
    pub(in crate::cli) pooling: Option<Pooling>,
}

fn pooling(name: &str) -> Result<Pooling, String> {
    let found = Pooling::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, pooling)| *pooling).ok_or_else(|| "it must be mean or cls".to_owned())
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EmbedArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    #[command(flatten)]
    pub(in crate::cli) vector: VectorArgs,
    /// The use that texts are for, by its name in the model's prompts, such as query
    #[arg(long, value_name = "NAME", conflicts_with = "prefix")]
    pub(in crate::cli) prompt: Option<String>,
    /// Read texts that are too long in windows, and take the mean of their vectors [default: their ends are cut off]
    #[arg(long)]
    pub(in crate::cli) windows: bool,
    /// Write the matrix of vectors to a safetensors file, with a JSON file beside it that says where the texts are from
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FillArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// Words for each mask
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = positive)]
    pub(in crate::cli) top: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct WriteArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// The most tokens of an answer [default: the model's, else 128]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
    /// Beams [default: the model's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = beams)]
    pub(in crate::cli) beams: Option<usize>,
    /// With beams: above 1 longer answers win, below 1 shorter ones [default: the model's, else 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true, value_parser = length_penalty)]
    pub(in crate::cli) length_penalty: Option<f64>,
    /// Text in front of each text, as a T5 wants one ("translate English to German: ") [default: the model's]
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) prefix: Option<String>,
    /// Texts at a time
    #[arg(long, default_value_t = 16, value_parser = positive)]
    pub(in crate::cli) batch: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ScoreArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    pub(in crate::cli) apply: ApplyArgs,
    /// For a model that answers: the question
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) question: Option<String>,
}
