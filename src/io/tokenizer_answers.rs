//! Vocabularies of answers: some translators read texts by one vocabulary and write them by another.

use super::{Inner, Tokenizer};
use std::sync::Arc;

impl Tokenizer {
    /// The same, whose answers have the vocabulary of another tokenizer: texts are encoded by this one, tokens decoded by the other.
    #[must_use]
    pub fn with_answers(self, answers: &Self) -> Self {
        Self { answers: Some(Arc::clone(&answers.inner)), ..self }
    }

    /// The tokenizer of answers, which encodes them as well: mostly this one.
    #[must_use]
    pub fn answers(&self) -> Self {
        Self { inner: Arc::clone(self.of_answers()), answers: None }
    }

    /// The `tokenizer.json` of answers, where they have a vocabulary of their own.
    #[must_use]
    pub fn answers_json(&self) -> Option<&str> {
        self.answers.as_ref().map(|answers| answers.json.as_str())
    }

    pub(super) fn of_answers(&self) -> &Arc<Inner> {
        self.answers.as_ref().unwrap_or(&self.inner)
    }
}
