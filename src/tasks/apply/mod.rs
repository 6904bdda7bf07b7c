//! Tasks on texts: from examples to rows of tokens, and from what a model gives back to answers that people read.

mod answerer;
mod classifier;
mod dialogue;
mod examples;
mod filler;
mod judge;
mod judge_coref;
mod judge_pairs;
mod mentions;
mod passages;
mod resolver;
mod scorer;
mod search;
mod search_files;
mod tagger;
mod writer;

pub use answerer::{Answered, Answerer};
pub use classifier::{Classified, Classifier, label_names};
pub use dialogue::{Dialogue, Turn};
pub use examples::Examples;
pub use filler::{Filled, Filler};
pub use judge::{Case, ClassScores, Judge, Verdict};
pub use mentions::find_mentions;
pub use resolver::{Resolved, Resolver};
pub use scorer::{Scored, Scorer};
pub use search::{Hit, VectorIndex};
pub use search_files::{Changes, IndexedFile, Passage, PassageKind, SearchFiles, SearchSettings, model_fingerprint};
pub use tagger::{Tagged, Tagger};
pub use writer::{Writer, WriterOptions, WriterText, pair_row};

#[doc(no_inline)]
pub use super::{Application, EmbedSettings, TaskFile, TextEmbedder};

use super::windows::row;
use crate::models::Model;

/// Whether a model tells the parts of a text apart.
pub(super) fn has_parts(model: &dyn Model) -> bool {
    model.config()["type_vocab_size"].as_u64().is_some_and(|types| types > 1)
}

/// softmax of logits, in f64.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|x| f64::from(x - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
