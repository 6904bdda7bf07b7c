//! Arguments of tasks that are learnt from examples.

use crate::cli::numbers::{count, layer_decay, positive, rate, share};
use crate::error::{Error, Result};
use crate::tasks::apply::Application;
use crate::tasks::data::{Columns, Format, ReadOptions};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// A task that is learnt from examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TaskName {
    /// Classes of texts
    Classify,
    /// Labelled parts of texts, as names
    Tag,
    /// Answers that are parts of a text
    Answer,
    /// Which mentions in texts are of the same
    Coref,
    /// Vectors, near each other for texts that belong together (pairs: source, target)
    Embed,
    /// Texts in another language
    Translate,
    /// Shorter texts
    Summarise,
    /// Texts without mistakes
    Correct,
    /// Any texts from any others
    Transform,
}

impl From<TaskName> for Application {
    fn from(name: TaskName) -> Self {
        match name {
            TaskName::Classify => Self::Classify,
            TaskName::Tag => Self::Tag,
            TaskName::Answer => Self::Answer,
            TaskName::Coref => Self::Coref,
            TaskName::Embed => Self::Embed,
            TaskName::Translate => Self::Translate,
            TaskName::Summarise => Self::Summarise,
            TaskName::Correct => Self::Correct,
            TaskName::Transform => Self::Transform,
        }
    }
}

/// How files of examples are read.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct ExampleArgs {
    /// Format of the examples: csv, tsv, json, jsonl, conll, lines [default: by the file's name, or its content]
    #[arg(long, value_parser = format)]
    pub(in crate::cli) format: Option<Format>,
    /// A table's first line is an example; its columns are called 1, 2, ...
    #[arg(long)]
    pub(in crate::cli) no_header: bool,
    /// Fields of the examples by what they are: text, second, label, tokens, tags, spans, question, context, answers, source, target (as
    /// label=stars,text=review) [default: their usual names]
    #[arg(long, value_name = "WHAT=FIELD", value_delimiter = ',')]
    pub(in crate::cli) column: Vec<String>,
}

fn format(name: &str) -> std::result::Result<Format, String> {
    let names = || Format::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = Format::NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, format)| *format).ok_or_else(|| format!("known are {}", names()))
}

impl ExampleArgs {
    pub(in crate::cli) fn options(&self) -> ReadOptions {
        ReadOptions { format: self.format, no_header: self.no_header }
    }

    pub(in crate::cli) fn columns(&self) -> Result<Columns> {
        let mut columns = Columns::default();
        for entry in &self.column {
            let (what, field) = entry.split_once('=').unwrap_or((entry, ""));
            let place = match what {
                "text" => &mut columns.text,
                "second" => &mut columns.second,
                "label" => &mut columns.label,
                "tokens" => &mut columns.tokens,
                "tags" => &mut columns.tags,
                "spans" => &mut columns.spans,
                "id" => &mut columns.id,
                "question" => &mut columns.question,
                "context" => &mut columns.context,
                "answers" => &mut columns.answers,
                "source" => &mut columns.source,
                "target" => &mut columns.target,
                _ => {
                    let message = format!("{entry:?}: write what a field is and its name, as label=stars (see --help)");
                    return Err(Error::input("column", message));
                }
            };
            if field.is_empty() {
                return Err(Error::input("column", format!("{entry:?} names no field: write {what}=NAME")));
            }
            *place = Some(field.to_owned());
        }
        Ok(columns)
    }
}

/// Options of `wgformer train --task`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TaskArgs {
    /// Train for a task on examples; the result runs by its command, or by wgformer run. Without --from a small transformer is made
    #[arg(long, value_enum, conflicts_with_all = ["pack", "bucket", "mor_init"])]
    pub(in crate::cli) task: Option<TaskName>,
    #[command(flatten)]
    pub(in crate::cli) examples: ExampleArgs,
    /// Files of examples to measure on [default: a tenth of --data, by the seed, of each class alike; kept in held_out.jsonl]
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "task")]
    pub(in crate::cli) eval_data: Vec<PathBuf>,
    /// The share of examples that is held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, requires = "task", conflicts_with = "eval_data")]
    pub(in crate::cli) held_out: f64,
    /// The most held-out examples that an evaluation measures on while it trains
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = positive, requires = "task")]
    pub(in crate::cli) eval_examples: usize,
    /// Passes over the examples, in place of --steps
    #[arg(long, value_parser = count, requires = "task", conflicts_with = "steps")]
    pub(in crate::cli) epochs: Option<u64>,
    /// Several classes of a text may hold (their labels are lists)
    #[arg(long, requires = "task")]
    pub(in crate::cli) multi_label: bool,
    /// Labels are numbers to come close to
    #[arg(long, requires = "task", conflicts_with = "multi_label")]
    pub(in crate::cli) regression: bool,
    /// Weights of classes in the loss: balanced (as if all were as frequent), or CLASS=WEIGHT,...
    #[arg(long, value_name = "WEIGHTS", requires = "task", conflicts_with_all = ["multi_label", "regression"])]
    pub(in crate::cli) class_weights: Option<String>,
    /// Share of the target that is spread over all classes, or tokens
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = rate, requires = "task")]
    pub(in crate::cli) label_smoothing: f64,
    /// Text in front of each text, as a T5 wants one ("summarize: ")
    #[arg(long, value_name = "TEXT", requires = "task")]
    pub(in crate::cli) prefix: Option<String>,
    /// Text between a text and its answer, for a model without an encoder [default: a line end]
    #[arg(long, value_name = "TEXT", requires = "task")]
    pub(in crate::cli) separator: Option<String>,
    /// Parameters that stay as they are, by parts of their names (embeddings,layer.0.)
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with = "lora")]
    pub(in crate::cli) freeze: Vec<String>,
    /// Learning rate of each layer as a share of that of the layer behind it
    #[arg(long, value_name = "SHARE", value_parser = layer_decay, conflicts_with = "lora")]
    pub(in crate::cli) layer_decay: Option<f64>,
}
