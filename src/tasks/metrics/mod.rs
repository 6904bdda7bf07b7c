//! Metrics as the field computes them, in plain Rust: each gives what the reference implementation that its page names gives.

mod assignment;
mod bleu;
mod bm25;
mod chrf;
mod classification;
mod coreference;
mod entities;
mod error_rate;
mod multi_label;
mod ngrams;
mod perplexity;
mod retrieval;
mod rouge;
mod squad;
pub(in crate::tasks) mod words;

pub use bleu::{Bleu, BleuOptions, Smoothing, bleu, bleu_signature};
pub use bm25::Bm25;
pub use chrf::{ChrfOptions, chrf, chrf_signature};
pub use classification::{Averages, ClassReport, Classification};
pub use coreference::{Clusters, b_cubed, ceaf_entities, ceaf_mentions, conll_f1, lea, mentions, muc};
pub use entities::{Entity, EntityAverages, EntityCounts, TagScheme, entities, strict_entities, tag_accuracy};
pub use error_rate::{Edits, character_error_rate, word_error_rate};
pub use multi_label::MultiLabel;
pub use perplexity::Perplexity;
pub use retrieval::Ranking;
pub use rouge::{rouge_l, rouge_l_sum, rouge_n};
pub use squad::{AnswerScore, AnswerTotals, best_threshold, exact_match, normalised_answer, token_f1};
pub use words::BleuTokenizer;

/// Precision, recall and their harmonic mean, each 0 where it would be 0 / 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scores {
    /// The share of what was said that is right.
    pub precision: f64,
    /// The share of what is right that was said.
    pub recall: f64,
    /// 2 · precision · recall / (precision + recall).
    pub f1: f64,
}

impl Scores {
    /// Of `right` hits among `said` and among `wanted`.
    #[must_use]
    pub fn new(right: f64, said: f64, wanted: f64) -> Self {
        Self::of(ratio(right, said), ratio(right, wanted))
    }

    /// Of a precision and a recall.
    #[must_use]
    pub fn of(precision: f64, recall: f64) -> Self {
        Self { precision, recall, f1: ratio(2.0 * precision * recall, precision + recall) }
    }

    /// The mean of scores by weights; F1 is the mean of F1s.
    fn weighted(scores: impl IntoIterator<Item = (f64, Self)>) -> Self {
        let (mut sums, mut whole) = ([0.0; 3], 0.0);
        for (weight, of) in scores {
            for (sum, value) in sums.iter_mut().zip([of.precision, of.recall, of.f1]) {
                *sum += weight * value;
            }
            whole += weight;
        }
        let [precision, recall, f1] = sums.map(|sum| ratio(sum, whole));
        Self { precision, recall, f1 }
    }
}

/// a / b, or 0 where b is 0.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// A score's settings in sacrebleu's form: how many references, case, what the metric adds, and the version.
fn signature(references: Option<usize>, lowercase: bool, settings: &str) -> String {
    let references = references.map_or_else(|| "var".to_owned(), |count| count.to_string());
    let case = if lowercase { "lc" } else { "mixed" };
    format!("nrefs:{references}|case:{case}|{settings}|version:wgformer-{}", env!("CARGO_PKG_VERSION"))
}

/// A setting in a signature.
fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

#[cfg(test)]
mod cases {
    use serde_json::Value;

    /// A file of values of reference implementations.
    pub(super) fn file(name: &str) -> Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metrics").join(name);
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Its cases, of which there must be at least so many.
    pub(super) fn of(file: &Value, least: usize) -> &[Value] {
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() >= least);
        cases
    }

    pub(super) fn close(found: f64, wanted: &Value, what: &Value) {
        let wanted = wanted.as_f64().unwrap();
        assert!((found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{what}: {found}, but should be {wanted}");
    }

    pub(super) fn close_scores(found: super::Scores, wanted: &Value, what: &Value) {
        close(found.precision, &wanted["precision"], what);
        close(found.recall, &wanted["recall"], what);
        close(found.f1, &wanted["f1"], what);
    }

    pub(super) fn text(value: &Value) -> &str {
        value.as_str().unwrap()
    }

    pub(super) fn texts(value: &Value) -> Vec<&str> {
        value.as_array().unwrap().iter().map(text).collect()
    }
}
