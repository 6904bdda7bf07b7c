//! The tokenizer in a file's metadata, as a `tokenizer.json`.

use super::metadata::Metadata;
use crate::error::Result;
use crate::io::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Types of tokens: control tokens, which are no text, and text that is never cut.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Words as GPT-2 cuts them: an English ending, or letters, digits or signs with the blank in front, or blanks.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// As Llama 3 cuts them: up to three digits, a sign joined to the letters behind it, lines' ends apart.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Qwen 2 cuts them: as Llama 3, but each digit alone.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The default rules of cutting, in order: signs, words, digits in threes.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];

/// The tokenizer; `None` if the file has none.
///
/// # Errors
/// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
pub(super) fn tokenizer(metadata: &Metadata<'_>) -> Result<Option<Tokenizer>> {
    match metadata.text(MODEL)? {
        None => return Ok(None),
        Some("gpt2") => {}
        Some(other) => {
            let message =
                format!("is \"{other}\"; the tokenizer that is read from GGUF files is gpt2, a byte-level BPE");
            return Err(metadata.refuse(MODEL, message));
        }
    }
    let (tokens, marked) = distinct(metadata, metadata.expect_texts(TOKENS)?);
    let pre = metadata.text(PRE)?.unwrap_or("default");
    let mut roles = json!({});
    for (role, key) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        if let Some(token) = special(metadata, &tokens, key)? {
            roles[format!("{role}_token")] = json!(token);
        }
    }
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        roles["chat_template"] = json!(template);
    }
    let begins = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(is_llama3(pre));
    let first = if begins { special(metadata, &tokens, "bos")? } else { None };
    let document = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added(metadata, &tokens)?,
        "pre_tokenizer": pre_tokenizer(metadata, pre)?,
        "post_processor": first.map_or(Value::Null, |first| beginning(first, &tokens)),
        "decoder": if marked { json!({"type": "Sequence", "decoders": [unmarked(), byte_level(true)]}) } else { byte_level(true) },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": is_llama3(pre),
            "vocab": vocabulary(&tokens), "merges": merges(metadata)?,
        },
    });
    Tokenizer::from_json_with(metadata.path, document.to_string(), &[roles]).map(Some)
}

fn is_llama3(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "falcon3")
}

/// The token that a key names by its id.
fn special<'a>(metadata: &Metadata<'_>, tokens: &'a [String], key: &str) -> Result<Option<&'a str>> {
    let id = metadata.token(key, tokens.len())?;
    Ok(id.and_then(|id| tokens.get(id as usize)).map(String::as_str))
}

/// The first of the characters that mark tokens: those of plane 15, a private-use area.
const MARK: u32 = 0xF_0000;
/// The number of items.
const MARKS: usize = 0xFFFE;

/// Tokens for a `tokenizer.json`, each text once, and whether any was marked. Empty and repeated tokens are marked with their number, so
/// that no text is encoded to them; [`unmarked`] removes the marks when they are decoded.
fn distinct(metadata: &Metadata<'_>, tokens: Vec<Cow<'_, str>>) -> (Vec<String>, bool) {
    let mut before = HashSet::new();
    let mut marked = 0;
    let mut all = Vec::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let mut text = token.clone().into_owned();
        if token.is_empty() || !before.insert(token) {
            marked += 1;
            let digits = [id / MARKS, id % MARKS];
            text.extend(digits.iter().filter_map(|&digit| char::from_u32(MARK + digit as u32)));
        }
        all.push(text);
    }
    if marked > 0 {
        let path = metadata.path.display();
        log::warn!("{path}: {marked} tokens are empty or occur twice; no text is encoded as them");
    }
    (all, marked > 0)
}

/// Removes the marks.
fn unmarked() -> Value {
    let [first, last] = [MARK, MARK + MARKS as u32 - 1].map(|code| char::from_u32(code).unwrap_or_default());
    json!({"type": "Replace", "pattern": {"Regex": format!("[{first}-{last}]")}, "content": ""})
}

fn vocabulary(tokens: &[String]) -> BTreeMap<&str, usize> {
    tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
}

fn merges(metadata: &Metadata<'_>) -> Result<Vec<[String; 2]>> {
    let pair = |merge: &str| {
        let pair = merge.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
        let pair = pair.map(|(a, b)| [a.to_owned(), b.to_owned()]);
        pair.ok_or_else(|| metadata.refuse(MERGES, format!("holds {merge:?}, which is not a pair of tokens")))
    };
    metadata.expect_texts(MERGES)?.iter().map(|merge| pair(merge)).collect()
}

/// Tokens that are found in a text first.
fn added(metadata: &Metadata<'_>, tokens: &[String]) -> Result<Vec<Value>> {
    let Some(types) = metadata.integers(TYPES, tokens.len())? else { return Ok(Vec::new()) };
    let known = types.iter().zip(tokens).enumerate().filter(|(_, (ty, _))| matches!(**ty, CONTROL | USER_DEFINED));
    let token = |(id, (ty, token)): (usize, (&i64, &String))| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": *ty == CONTROL})
    };
    Ok(known.map(token).collect())
}

fn byte_level(words: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words})
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

/// The rules of cutting a text into words before merges, by their name in the file.
fn pre_tokenizer(metadata: &Metadata<'_>, name: &str) -> Result<Value> {
    let steps = match name {
        "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "roberta-bpe" => vec![byte_level(true)],
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]
        }
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" => vec![split(QWEN2), byte_level(false)],
        "default" => DEFAULT.map(split).into_iter().chain([byte_level(false)]).collect(),
        name if is_llama3(name) => vec![split(LLAMA3), byte_level(false)],
        other => {
            let message = format!(
                "is \"{other}\"; supported are default, gpt-2, llama-bpe, qwen2, smollm and those that cut words as \
                 these do. A folder with the model's tokenizer.json works as well"
            );
            return Err(metadata.refuse(PRE, message));
        }
    };
    Ok(json!({"type": "Sequence", "pretokenizers": steps}))
}

/// Puts a token in front of each text for the model.
fn beginning(token: &str, tokens: &[String]) -> Value {
    let id = tokens.iter().position(|t| t == token);
    let first = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str, ty: u32| json!({"Sequence": {"id": id, "type_id": ty}});
    json!({
        "type": "TemplateProcessing",
        "single": [first, text("A", 0)],
        "pair": [first, text("A", 0), text("B", 1)],
        "special_tokens": { token: {"id": token, "ids": [id], "tokens": [token]} },
    })
}
