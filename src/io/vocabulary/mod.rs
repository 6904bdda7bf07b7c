//! Vocabularies of other formats as a `tokenizer.json`.

pub(super) mod byte_level;
#[cfg(feature = "files")]
pub(super) mod files;
pub(super) mod sentencepiece;
#[cfg(feature = "files")]
mod spm_file;
#[cfg(feature = "files")]
mod spm_folder;
pub(super) mod wordpiece;
pub(super) mod words;

use serde_json::{Value, json};
use std::collections::HashSet;

/// The first of the characters that mark tokens: those of plane 15, a private-use area.
const MARK: u32 = 0xF_0000;
/// The number of them.
const MARKS: usize = 0xFFFE;

/// A token that no text is encoded to, as it stands in a vocabulary; [`unmarked`] removes the mark when it is decoded.
pub(super) fn marked(token: &str, id: usize) -> String {
    let digits = [id / MARKS, id % MARKS];
    let mark = digits.iter().filter_map(|&digit| char::from_u32(MARK + digit as u32));
    token.chars().chain(mark).collect()
}

/// Removes the marks.
fn unmarked() -> Value {
    let [first, last] = [MARK, MARK + MARKS as u32 - 1].map(|code| char::from_u32(code).unwrap_or_default());
    json!({"type": "Replace", "pattern": {"Regex": format!("[{first}-{last}]")}, "content": ""})
}

/// The tokens, each text once, with empty and repeated ones [`marked`], and how many these are.
pub(super) fn distinct(tokens: impl IntoIterator<Item = String>) -> (Vec<String>, usize) {
    let mut before = HashSet::new();
    let mut count = 0;
    let mut one = |(id, token): (usize, String)| {
        if token.is_empty() || !before.insert(token.clone()) {
            count += 1;
            return marked(&token, id);
        }
        token
    };
    let all = tokens.into_iter().enumerate().map(&mut one).collect();
    (all, count)
}

/// A token that is found in a text first. A special one is no text.
pub(super) fn added(id: usize, token: &str, special: bool) -> Value {
    json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": special})
}

/// A token of a template: what it is written as, and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark<'a> {
    pub(super) token: &'a str,
    pub(super) id: usize,
}

/// The tokens around a text that is given to the model.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Around<'a> {
    pub(super) before: Option<Mark<'a>>,
    pub(super) behind: Option<Mark<'a>>,
    /// Whether the second of two texts has type 1.
    pub(super) types: bool,
}

impl Around<'_> {
    /// The post-processor.
    pub(super) fn to_json(self) -> Value {
        let Self { before, behind, types } = self;
        if before.is_none() && behind.is_none() {
            return Value::Null;
        }
        let special = |mark: Mark<'_>, ty: u32| json!({"SpecialToken": {"id": mark.token, "type_id": ty}});
        let text = |id: &str, ty: u32| json!({"Sequence": {"id": id, "type_id": ty}});
        let single: Vec<Value> = before
            .map(|mark| special(mark, 0))
            .into_iter()
            .chain([text("A", 0)])
            .chain(behind.map(|mark| special(mark, 0)))
            .collect();
        let ty = u32::from(types);
        let second = [text("B", ty)].into_iter().chain(behind.map(|mark| special(mark, ty)));
        let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
        let tokens = [before, behind].into_iter().flatten();
        let tokens = tokens
            .map(|mark| (mark.token.to_owned(), json!({"id": mark.token, "ids": [mark.id], "tokens": [mark.token]})));
        let tokens: serde_json::Map<String, Value> = tokens.collect();
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
    }
}

/// A part of what is given to a model: the first text (`A`) or the second (`B`), or a token with its number.
#[cfg(feature = "files")]
pub(super) enum Part {
    Text(&'static str),
    Token(String, usize),
}

/// The post-processor that makes a text, and a pair of them, so; all of type 0.
#[cfg(feature = "files")]
pub(super) fn template(single: &[&Part], pair: &[&Part]) -> Value {
    let one = |part: &&Part| match part {
        Part::Text(id) => json!({"Sequence": {"id": id, "type_id": 0}}),
        Part::Token(token, _) => json!({"SpecialToken": {"id": token, "type_id": 0}}),
    };
    let tokens = single.iter().chain(pair).filter_map(|part| match part {
        Part::Text(_) => None,
        Part::Token(token, id) => Some((token.clone(), json!({"id": token, "ids": [id], "tokens": [token]}))),
    });
    json!({"type": "TemplateProcessing", "single": single.iter().map(one).collect::<Vec<_>>(),
           "pair": pair.iter().map(one).collect::<Vec<_>>(), "special_tokens": tokens.collect::<serde_json::Map<_, _>>()})
}

/// A `tokenizer.json` of these parts.
pub(super) fn document(parts: Parts) -> Value {
    let Parts { added, normalizer, pre_tokenizer, around, decoder, model } = parts;
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
           "pre_tokenizer": pre_tokenizer, "post_processor": around, "decoder": decoder, "model": model})
}

/// The parts of a `tokenizer.json`.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) added: Vec<Value>,
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) around: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
}

/// Several steps as one.
fn sequence(kind: &str, steps: Vec<Value>) -> Value {
    if steps.is_empty() { Value::Null } else { json!({"type": "Sequence", kind: steps}) }
}

#[cfg(test)]
#[cfg(all(feature = "tokenizers", feature = "files"))]
#[path = "tests.rs"]
mod file_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_and_repeated_tokens_are_marked_apart() {
        let (tokens, count) = distinct(["a", "", "b", "a", ""].map(str::to_owned));
        assert_eq!(count, 3);
        assert_eq!((tokens[0].as_str(), tokens[2].as_str()), ("a", "b"));
        let all: HashSet<&String> = tokens.iter().collect();
        assert!(all.len() == 5 && tokens[3].starts_with('a') && tokens[3].chars().count() == 3);
    }
}
