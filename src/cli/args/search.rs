//! Arguments of `wgformer search`.

use super::{Common, InferenceStorage, VectorArgs};
use crate::cli::numbers::positive;
use crate::tasks::apply::PassageKind;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PassageName {
    /// Lines
    Lines,
    /// What stands between blank lines
    Paragraphs,
    /// As much as the model reads at a time
    Windows,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SearchArgs {
    #[command(flatten)]
    pub(in crate::cli) common: Common,
    /// The folder of the index
    #[arg(value_name = "INDEX")]
    pub(in crate::cli) index: PathBuf,
    /// What to look for; each argument is a query of its own
    #[arg(value_name = "QUERY")]
    pub(in crate::cli) query: Vec<String>,
    /// Take files, and the text files of folders, into the index, and look again at those that it has: what is new or changed is read, what is
    /// gone leaves
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1..)]
    pub(in crate::cli) add: Vec<PathBuf>,
    /// The model of a new index: the folder of an encoder, such as one of sentence-transformers [default: the index's own]
    #[arg(long, value_name = "MODEL")]
    pub(in crate::cli) model: Option<PathBuf>,
    /// How the files of a new index are divided; what is longer than the model reads is divided further [default: paragraphs]
    #[arg(long, value_name = "KIND", value_parser = clap::builder::TypedValueParser::map(clap::builder::EnumValueParser::<PassageName>::new(), kind))]
    pub(in crate::cli) passages: Option<PassageKind>,
    /// The most passages that are shown
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = positive)]
    pub(in crate::cli) top: usize,
    /// Measure by JSON lines {"query": TEXT, "relevant": [PASSAGE, ...]}, beside a search by words (BM25); a passage is its text, FILE:LINE
    /// where it begins, or FILE for all of a file
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    pub(in crate::cli) eval: Option<PathBuf>,
    /// With --eval, write a page with the metrics and the queries
    #[arg(long, value_name = "FILE", requires = "eval")]
    pub(in crate::cli) html: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) vector: VectorArgs,
    /// Text in front of each query [default: the model's, by its prompt called query]
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) query_prefix: Option<String>,
    /// The most tokens of a passage [default: the model's]
    #[arg(long, value_parser = positive)]
    pub(in crate::cli) context: Option<usize>,
    /// Storage type of matrices; quantised types round to the nearest value [default: as in the file]
    #[arg(long, value_enum)]
    pub(in crate::cli) dtype: Option<InferenceStorage>,
}

fn kind(name: PassageName) -> PassageKind {
    match name {
        PassageName::Lines => PassageKind::Lines,
        PassageName::Paragraphs => PassageKind::Paragraphs,
        PassageName::Windows => PassageKind::Windows,
    }
}
