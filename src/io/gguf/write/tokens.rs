//! A `tokenizer.json` in the keys of a GGUF file.

use super::super::vocabulary::ROLES;
use super::layout::{Entry, Item};
use crate::io::tokenizer::Tokenizer;
use crate::io::vocabulary::wordpiece::WITHIN;
use crate::io::vocabulary::words::Rule;
use serde_json::Value;
use std::collections::BTreeMap;

/// Types of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;
const BLANK: &str = "\u{2581}";

/// The entries; or why the tokenizer has no form in GGUF.
pub(super) fn entries(tokenizer: &Tokenizer) -> Result<Vec<Entry>, String> {
    if tokenizer.answers_json().is_some_and(|answers| answers != tokenizer.to_json()) {
        return Err("its answers have a vocabulary of their own, and files have one".into());
    }
    let document: Value = serde_json::from_str(tokenizer.to_json()).map_err(|error| error.to_string())?;
    let model = &document["model"];
    let mut vocabulary = Vocabulary::of(&document)?;
    let mut entries = Vec::new();
    match model["type"].as_str() {
        Some("BPE") if model["byte_fallback"] == true => {
            vocabulary.score_by_merges(model);
            entries.push(Entry::text("tokenizer.ggml.model", "llama"));
            entries.push(Entry::text("tokenizer.ggml.pre", "default"));
            entries.push(Entry::new("tokenizer.ggml.scores", Item::Numbers(vocabulary.scores.clone())));
            entries.push(Entry::new("tokenizer.ggml.add_space_prefix", Item::Flag(begins_with_blank(&document))));
        }
        Some("BPE") => {
            let rule = Rule::of_pre_tokenizer(&document["pre_tokenizer"], model["ignore_merges"] == true)
                .ok_or("its way of cutting words has no name in GGUF")?;
            entries.push(Entry::text("tokenizer.ggml.model", "gpt2"));
            entries.push(Entry::text("tokenizer.ggml.pre", rule));
            entries.push(Entry::new("tokenizer.ggml.merges", Item::Texts(merges(model))));
        }
        Some("Unigram") => {
            let (charsmap, removes_blanks) = preparation(&document)?;
            if !charsmap.is_empty() {
                entries.push(Entry::new("tokenizer.ggml.precompiled_charsmap", Item::Bytes(charsmap)));
            }
            entries.push(Entry::new("tokenizer.ggml.remove_extra_whitespaces", Item::Flag(removes_blanks)));
            entries.push(Entry::text("tokenizer.ggml.model", "t5"));
            entries.push(Entry::text("tokenizer.ggml.pre", "default"));
            entries.push(Entry::new("tokenizer.ggml.scores", Item::Numbers(vocabulary.scores.clone())));
            entries.push(Entry::new("tokenizer.ggml.add_space_prefix", Item::Flag(begins_with_blank(&document))));
        }
        Some("WordPiece") => {
            vocabulary.tokens.iter_mut().zip(&vocabulary.types).filter(|(_, kind)| **kind == NORMAL).for_each(
                |(token, _)| {
                    *token = match token.strip_prefix(WITHIN) {
                        Some(within) => within.to_owned(),
                        None => format!("{BLANK}{token}"),
                    };
                },
            );
            entries.push(Entry::text("tokenizer.ggml.model", "bert"));
            entries.push(Entry::text("tokenizer.ggml.pre", "default"));
            let normalizer = &document["normalizer"];
            if normalizer["type"] != "BertNormalizer" || normalizer["handle_chinese_chars"] == false {
                return Err("GGUF has no key for what it does with a text before it is cut".into());
            }
            let lower_case = normalizer["lowercase"].as_bool().unwrap_or(true);
            let strip_accents = normalizer["strip_accents"].as_bool().unwrap_or(lower_case);
            entries.push(Entry::new("tokenizer.ggml.normalizer.lowercase", Item::Flag(lower_case)));
            entries.push(Entry::new("tokenizer.ggml.normalizer.strip_accents", Item::Flag(strip_accents)));
        }
        other => return Err(format!("{} has no form in GGUF", other.unwrap_or("its kind"))),
    }
    entries.push(Entry::new("tokenizer.ggml.tokens", Item::Texts(vocabulary.tokens)));
    entries.push(Entry::new("tokenizer.ggml.token_type", Item::Integers(vocabulary.types)));
    for (role, key) in ROLES {
        if let Some(id) = tokenizer.special(role) {
            entries.push(Entry::new(format!("tokenizer.ggml.{key}_token_id"), Item::Count(id)));
        }
    }
    let begins = tokenizer.prefix().first().copied();
    let begins = begins.is_some() && [tokenizer.special("bos"), tokenizer.special("cls")].contains(&begins);
    entries.push(Entry::new("tokenizer.ggml.add_bos_token", Item::Flag(begins)));
    let around = tokenizer.encode_for_model("", None).map_err(|error| error.to_string())?.ids;
    let last = around.get(usize::from(begins)..).and_then(|behind| behind.last().copied());
    // Separators of WordPiece are behind a text without a key.
    if model["type"] != "WordPiece" {
        let ends = last.is_some() && last == tokenizer.special("eos");
        if last.is_some() && !ends {
            return Err(
                "the token that it puts behind a text is not the one that ends texts, and GGUF has no key for that"
                    .into(),
            );
        }
        entries.push(Entry::new("tokenizer.ggml.add_eos_token", Item::Flag(ends)));
    }
    let (_, templates, _) = tokenizer.conversations();
    for (name, template) in templates {
        let key = if name == "default" || templates.len() == 1 { String::new() } else { format!(".{name}") };
        entries.push(Entry::text(format!("tokenizer.chat_template{key}"), template.clone()));
    }
    Ok(entries)
}

/// What is done with a text before pieces are chosen: the table of replacements, as `SentencePiece` stores it, and whether blanks are removed. An
/// error names a step that files have no key for.
fn preparation(document: &Value) -> Result<(Vec<u8>, bool), String> {
    let [normalizer, pre] = [&document["normalizer"], &document["pre_tokenizer"]];
    let steps = |part: &Value, list: &str| match part {
        Value::Null => Vec::new(),
        part => part[list].as_array().cloned().unwrap_or_else(|| vec![part.clone()]),
    };
    let (mut charsmap, mut removes_blanks) = (Vec::new(), false);
    for step in steps(normalizer, "normalizers").iter().chain(&steps(pre, "pretokenizers")) {
        let [pattern, content] = [&step["pattern"], &step["content"]];
        match step["type"].as_str().unwrap_or_default() {
            "Precompiled" => {
                let text = step["precompiled_charsmap"].as_str().unwrap_or_default();
                charsmap = base64::decode(text).map_err(|_| "its table of normal forms is no base 64".to_owned())?;
            }
            "Strip" | "WhitespaceSplit" => removes_blanks = true,
            "Replace" if pattern["Regex"] == " {2,}" && (content == " " || content == BLANK) => removes_blanks = true,
            "Replace" if pattern["String"] == " " && content == BLANK => {}
            "Prepend" | "Metaspace" => {}
            other => return Err(format!("GGUF has no key for the step {other:?} in front of its pieces")),
        }
    }
    Ok((charsmap, removes_blanks))
}

/// Whether a blank is put in front of a text.
fn begins_with_blank(document: &Value) -> bool {
    let scheme = |part: &Value| part["prepend_scheme"].as_str().is_some_and(|scheme| scheme != "never");
    let [normalizer, pre] = [&document["normalizer"], &document["pre_tokenizer"]];
    let parts = normalizer["normalizers"].as_array().into_iter().chain(pre["pretokenizers"].as_array()).flatten();
    parts.chain([normalizer, pre]).any(|part| part["type"] == "Prepend" || part["type"] == "Metaspace" && scheme(part))
}

fn merges(model: &Value) -> Vec<String> {
    let merges = model["merges"].as_array().into_iter().flatten();
    let text = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    merges.filter_map(text).collect()
}

/// The tokens by their numbers.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    scores: Vec<f32>,
}

impl Vocabulary {
    fn of(document: &Value) -> Result<Self, String> {
        let model = &document["model"];
        let mut all: BTreeMap<u64, (String, i32, f32)> = BTreeMap::new();
        if let Some(pieces) = model["vocab"].as_array() {
            for (id, piece) in (0..).zip(pieces) {
                let text = piece[0].as_str().ok_or("a piece of its vocabulary is no text")?;
                all.insert(id, (text.to_owned(), NORMAL, piece[1].as_f64().unwrap_or(0.0) as f32));
            }
        }
        for (token, id) in model["vocab"].as_object().into_iter().flatten() {
            let id = id.as_u64().ok_or("a number of its vocabulary is none")?;
            all.insert(id, (token.clone(), NORMAL, 0.0));
        }
        for added in document["added_tokens"].as_array().into_iter().flatten() {
            let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else { continue };
            let kind = if added["special"] == true { CONTROL } else { USER_DEFINED };
            all.insert(id, (content.to_owned(), kind, 0.0));
        }
        let count = all.keys().next_back().map_or(0, |last| last + 1);
        if count > 1 << 24 {
            return Err(format!("it has tokens up to number {count}"));
        }
        let (mut tokens, mut types, mut scores) = (Vec::new(), Vec::new(), Vec::new());
        let unknown = model["unk_token"].as_str();
        let unknown_id = model["unk_id"].as_u64();
        for id in 0..count {
            let (token, kind, score) = all.remove(&id).unwrap_or_else(|| (format!("[unused{id}]"), UNUSED, 0.0));
            let is_byte = token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
            let kind = match kind {
                _ if Some(token.as_str()) == unknown || Some(id) == unknown_id => UNKNOWN,
                NORMAL if is_byte && model["byte_fallback"] == true => BYTE,
                kind => kind,
            };
            tokens.push(token);
            types.push(kind);
            scores.push(score);
        }
        Ok(Self { tokens, types, scores })
    }

    /// Scores by which the same pairs are merged first: less for each merge, those of tokens that no merge makes below all.
    fn score_by_merges(&mut self, model: &Value) {
        let merges = merges(model);
        let mut first = BTreeMap::new();
        for (rank, merge) in merges.iter().enumerate() {
            first.entry(merge.replacen(' ', "", 1)).or_insert(rank);
        }
        let last = merges.len() as f32;
        for (token, (score, kind)) in self.tokens.iter().zip(self.scores.iter_mut().zip(&self.types)) {
            *score = match (first.get(token), *kind) {
                (_, CONTROL | UNKNOWN | BYTE | USER_DEFINED | UNUSED) => 0.0,
                (Some(rank), _) => -(*rank as f32),
                (None, _) => -last,
            };
        }
    }
}
