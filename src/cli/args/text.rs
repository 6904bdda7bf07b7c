//! Arguments of `wgformer generate` and `wgformer eval`.

use super::{CacheStorage, Common, ExampleArgs, InferenceStorage, TaskName};
use crate::cli::numbers::{
    beams, count, length_penalty, min_p, ngram, penalty, positive, stop, temperature, top_k, top_p,
};
use crate::generate::EarlyStopping;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Default, Args)]
pub(in crate::cli) struct GenerateArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// Text to continue, - for standard input; several are continued as one batch [default: piped input, else an empty line]
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) prompt: Vec<String>,
    /// File with a text to continue, - for standard input; a final line break is removed
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) prompt_file: Vec<PathBuf>,
    /// Put each prompt into the model's chat template as a user message, and print only the answer
    #[arg(long)]
    pub(in crate::cli) chat: bool,
    /// With --chat, the system message
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    pub(in crate::cli) system: Option<String>,
    /// The most tokens to write [default: the model's max_new_tokens, else 200]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
    /// Always take the most likely token, whatever the model's settings
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p"])]
    pub(in crate::cli) greedy: bool,
    /// Sampling temperature: below 1 more predictable, above 1 more random, 0 the most likely token [default: the model's, else 0.8]
    #[arg(long, value_parser = temperature)]
    pub(in crate::cli) temperature: Option<f32>,
    /// Sample among this many most likely tokens; 0: all [default: the model's, else all]
    #[arg(long, value_name = "COUNT", value_parser = top_k)]
    pub(in crate::cli) top_k: Option<usize>,
    /// Sample among the most likely tokens with this total probability; 1: all [default: the model's, else all]
    #[arg(long, value_name = "SHARE", value_parser = top_p)]
    pub(in crate::cli) top_p: Option<f32>,
    /// Exclude tokens below this share of the highest probability; 0: none [default: the model's, else none]
    #[arg(long, value_name = "SHARE", value_parser = min_p)]
    pub(in crate::cli) min_p: Option<f32>,
    /// Divide the scores of tokens that already occurred by this factor; 1: no penalty [default: the model's, else 1]
    #[arg(long, value_name = "FACTOR", value_parser = penalty)]
    pub(in crate::cli) repetition_penalty: Option<f32>,
    /// Beam search: this many continuations of each prompt side by side, and the likeliest answer of all; with an option of sampling they are
    /// drawn; 1: none [default: the model's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = beams, conflicts_with = "greedy")]
    pub(in crate::cli) beams: Option<usize>,
    /// With beams: the score of an answer is its log-probability over its length to this power; above 1 longer answers win, below 1 shorter
    /// ones [default: the model's, else 1]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true, value_parser = length_penalty)]
    pub(in crate::cli) length_penalty: Option<f64>,
    /// With beams: when to end: "no" when no running beam looks better than the answers found, "yes" as soon as there are as many answers
    /// as beams, "never" before no better answer is possible [default: the model's, else no]
    #[arg(long, value_enum)]
    pub(in crate::cli) early_stopping: Option<Early>,
    /// With beams: print this many answers of each prompt, the best first [default: the model's, else 1]
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) best: Option<usize>,
    /// No sequence of this many tokens comes twice; 0: any may [default: the model's, else 0]
    #[arg(long, value_name = "COUNT", value_parser = ngram)]
    pub(in crate::cli) no_repeat_ngram: Option<usize>,
    /// Random seed
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(in crate::cli) seed: u64,
    /// Stop before this text or special token
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop)]
    pub(in crate::cli) stop: Vec<String>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
    /// Storage type of the keys and values of earlier tokens: half or a quarter of the memory, and of what a long text makes a token cost
    #[arg(long, value_enum, default_value = "f32")]
    pub(in crate::cli) cache: CacheStorage,
    /// Greedy answers that repeat something of their text: check up to this many tokens at once (the answer is the same); 0: none
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = ngram)]
    pub(in crate::cli) lookup: usize,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ChatArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder with config.json, model.safetensors, tokenizer.json, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// The system message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) system: Option<String>,
    /// File with an earlier conversation, which goes on, and is kept there (JSON lines of role and content)
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) history: Option<PathBuf>,
    /// The most tokens of conversation and answer together: when it is full, the oldest turns are left out [default: the model's maximum, at
    /// most 2048]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// The most tokens of an answer [default: the model's max_new_tokens, else 200]
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
    /// Always take the most likely token, whatever the model's settings
    #[arg(long, conflicts_with_all = ["temperature", "top_p"])]
    pub(in crate::cli) greedy: bool,
    /// Sampling temperature [default: the model's, else 0.8]
    #[arg(long, value_parser = temperature)]
    pub(in crate::cli) temperature: Option<f32>,
    /// Sample among the most likely tokens with this total probability [default: the model's, else all]
    #[arg(long, value_name = "SHARE", value_parser = top_p)]
    pub(in crate::cli) top_p: Option<f32>,
    /// Random seed
    #[arg(long, default_value_t = 1, value_parser = count)]
    pub(in crate::cli) seed: u64,
    /// Stop an answer before this text or special token
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop)]
    pub(in crate::cli) stop: Vec<String>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
    /// Storage type of the keys and values of earlier tokens: half or a quarter of the memory, and of what a long text makes a token cost
    #[arg(long, value_enum, default_value = "f32")]
    pub(in crate::cli) cache: CacheStorage,
    /// Greedy answers that repeat something of the conversation: check up to this many tokens at once (the answer is the same); 0: none
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = ngram)]
    pub(in crate::cli) lookup: usize,
}

/// When beam search ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Early {
    /// When no running beam looks better than the answers found
    No,
    /// When there are as many answers as beams
    Yes,
    /// When no better answer is possible
    Never,
}

impl From<Early> for EarlyStopping {
    fn from(early: Early) -> Self {
        match early {
            Early::No => Self::Heuristic,
            Early::Yes => Self::AtOnce,
            Early::Never => Self::Never,
        }
    }
}

/// When windows of a text begin with a BOS token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Bos {
    /// If the tokenizer adds special tokens at the beginning of a text
    Auto,
    /// Always
    Always,
    /// Never, as `wgformer train` measures held-out text
    Never,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EvalArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The model: a folder, or a GGUF file
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: PathBuf,
    /// The folder of a LoRA adapter for the model, as Python's peft has it
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) lora: Option<PathBuf>,
    /// Text files to measure on, or pipes (/dev/stdin); of a model that was trained for a task, files of examples
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub(in crate::cli) data: Vec<PathBuf>,
    /// Measure the metrics of a task on examples [default: what the model was trained for; else loss and perplexity on text]
    #[arg(long, value_enum)]
    pub(in crate::cli) task: Option<TaskName>,
    #[command(flatten)]
    pub(in crate::cli) examples: ExampleArgs,
    /// Of a task: measure on at most so many examples
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) examples_at_most: Option<usize>,
    /// Of a task that writes: the most tokens of an answer [default: the model's, else 128]
    #[arg(long, value_name = "COUNT", value_parser = positive)]
    pub(in crate::cli) max_tokens: Option<usize>,
    /// Of a task: write a page with metrics, confusion matrix and examples
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) html: Option<PathBuf>,
    /// Tokens of context [default: the model's maximum, at most 1024]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// Begin each window with the special tokens that the model expects at the beginning of a text (usually BOS)
    #[arg(long, value_enum, default_value = "auto")]
    pub(in crate::cli) bos: Bos,
    /// Sequences in a batch
    #[arg(long, default_value_t = 8, value_parser = positive)]
    pub(in crate::cli) batch: usize,
    /// Measure on at most this many batches
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) batches: Option<usize>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
}
