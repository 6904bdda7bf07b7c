//! Vocabularies of `WordPiece` (Schuster and Nakajima, 2012), as BERT has them: the longest token that fits, word by word.

use super::{Parts, added, document};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Stands in front of tokens that go on a word.
pub(in crate::io) const WITHIN: &str = "##";
/// Longer words are unknown.
const LONGEST: usize = 100;

/// A vocabulary and what is done with a text before.
#[derive(Clone, Debug)]
pub(in crate::io) struct WordPiece<'a> {
    /// The tokens, those that go on a word with [`WITHIN`] in front.
    pub(in crate::io) tokens: &'a [String],
    /// The token of unknown words.
    pub(in crate::io) unknown: &'a str,
    /// Ids of tokens that are no text.
    pub(in crate::io) special: Vec<usize>,
    pub(in crate::io) lower_case: bool,
    /// Whether accents are removed.
    pub(in crate::io) strip_accents: bool,
    /// Whether each Chinese character is a word.
    pub(in crate::io) chinese: bool,
}

impl WordPiece<'_> {
    /// The `tokenizer.json`, with `around` as its post-processor.
    pub(in crate::io) fn document(&self, around: Value) -> Value {
        let vocabulary: BTreeMap<&str, usize> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
        document(Parts {
            added: self.special.iter().filter_map(|&id| Some(added(id, self.tokens.get(id)?, true))).collect(),
            normalizer: json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": self.chinese,
                               "strip_accents": self.strip_accents, "lowercase": self.lower_case}),
            pre_tokenizer: json!({"type": "BertPreTokenizer"}),
            around,
            decoder: json!({"type": "WordPiece", "prefix": WITHIN, "cleanup": true}),
            model: json!({"type": "WordPiece", "unk_token": self.unknown, "continuing_subword_prefix": WITHIN,
                          "max_input_chars_per_word": LONGEST, "vocab": vocabulary}),
        })
    }
}
