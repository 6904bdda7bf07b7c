//! Facts read from an opened tokenizer and the files beside it.

use super::tokenizer::END_OF_TEXT;
use super::vocabulary::marked;
use crate::error::{Error, Result, panic_words};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::AddedToken;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// Names of tokens that end a text or a turn of a chat. They count where a file lists them apart from ordinary tokens.
const ENDS: [&str; 25] = [
    "</s>",
    "<eos>",
    "[EOS]",
    END_OF_TEXT,
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<turn|>",
    "<|end_of_turn|>",
    "<|endofturn|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|end_of_message|>",
    "<end_of_utterance>",
    "<EOT>",
    "[EOT]",
    "<|calls|>",
    "<|flush|>",
    "[e~[",
    "<｜end▁of▁sentence｜>",
];

/// Roles of special tokens and the names they usually go by, for a `tokenizer.json` without its `tokenizer_config.json`.
const ROLES: [(&str, &[&str]); 7] = [
    ("bos", &["<s>", "<bos>", "<|begin_of_text|>", END_OF_TEXT]),
    ("eos", &["</s>", "<eos>", "<|end_of_text|>", END_OF_TEXT]),
    ("pad", &["<pad>", "[PAD]"]),
    ("unk", &["<unk>", "[UNK]"]),
    ("cls", &["[CLS]"]),
    ("sep", &["[SEP]"]),
    ("mask", &["[MASK]", "<mask>"]),
];

/// Special tokens by their roles: those that the files name, or by their usual names.
pub(super) fn roles(tokenizer: &tokenizers::Tokenizer, names: &[Value]) -> BTreeMap<&'static str, (String, u32)> {
    let find = |&(role, usual): &(&'static str, &[&str])| {
        let named = names.iter().find_map(|names| token_name(names.get(format!("{role}_token"))?));
        let candidates = named.into_iter().chain(usual.iter().map(|&usual| usual.to_owned()));
        candidates.into_iter().find_map(|token| tokenizer.token_to_id(&token).map(|id| (role, (token, id))))
    };
    ROLES.iter().filter_map(find).collect()
}

/// A token's name in `tokenizer_config.json`: text, or an object with its settings.
fn token_name(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// The tokens that end an answer.
pub(super) fn ends(tokenizer: &tokenizers::Tokenizer, names: &[Value]) -> Vec<u32> {
    let named = names.iter().find_map(|names| token_name(names.get("eos_token")?));
    let named = named.and_then(|token| tokenizer.token_to_id(&token));
    let added = tokenizer.get_added_tokens_decoder();
    let is_there = |name: &str| added.values().any(|token| token.content == name);
    // If two such end a turn, this one ends a message within it.
    let both = |one: &str, other: &str| is_there(one) && is_there(other);
    let within = |name: &str| name == "<|end|>" && (both("<|return|>", "<|call|>") || both("<|flush|>", "<|calls|>"));
    let known = added.iter().filter(|(_, token)| ENDS.contains(&token.content.as_str()) && !within(&token.content));
    let ids: BTreeSet<u32> = known.map(|(&id, _)| id).chain(named).collect();
    ids.into_iter().collect()
}

/// The special tokens that the tokenizer puts in front of a text.
pub(super) fn prefix(source: &Path, tokenizer: &tokenizers::Tokenizer) -> Vec<u32> {
    // A vocabulary of words may have no token for a letter.
    let encoded = ["a", ""].into_iter().find_map(|text| guarded(source, || tokenizer.encode(text, true)).ok()?.ok());
    let Some(encoding) = encoded else { return Vec::new() };
    let special = encoding.get_special_tokens_mask().iter().take_while(|&&special| special == 1).count();
    // Around an empty text prefix and suffix are one string: it counts as the prefix.
    let count = if special == encoding.len() { special.min(1) } else { special };
    encoding.get_ids()[..count].to_vec()
}

/// The name of the main template of conversations.
pub(super) const MAIN: &str = "default";

/// The templates of conversations with their names: of the first file that has any, a text or a list.
pub(super) fn templates(names: &[Value]) -> Vec<(String, String)> {
    let of = |value: &Value| -> Vec<(String, String)> {
        let named =
            |one: &Value| Some((one.get("name")?.as_str()?.to_owned(), one.get("template")?.as_str()?.to_owned()));
        match value {
            Value::String(text) => vec![(MAIN.to_owned(), text.clone())],
            Value::Array(list) => list.iter().filter_map(named).collect(),
            _ => Vec::new(),
        }
    };
    names
        .iter()
        .filter_map(|names| names.get("chat_template"))
        .map(of)
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

/// The characters of a tokenizer that drops all others without a word: a BPE that nothing prepares the text for.
pub(super) fn alphabet(tokenizer: &tokenizers::Tokenizer) -> Option<HashSet<char>> {
    let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return None };
    let bare = tokenizer.get_normalizer().is_none()
        && tokenizer.get_pre_tokenizer().is_none()
        && tokenizer.get_added_vocabulary().is_empty()
        && bpe.get_unk_token().is_none()
        && !bpe.byte_fallback;
    let single = |token: String| -> Option<char> {
        let mut characters = token.chars();
        characters.next().filter(|_| characters.next().is_none())
    };
    bare.then(|| bpe.get_vocab().into_keys().filter_map(single).collect())
}

/// Whether a text may be cut before a blank: true for the plain byte-level pattern, which never joins a blank to the text
/// before it, and without merges.
pub(super) fn divisible(tokenizer: &tokenizers::Tokenizer) -> bool {
    let plain = match tokenizer.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(level)) => {
            !level.add_prefix_space && (level.use_regex || !has_merges(tokenizer))
        }
        None => matches!(tokenizer.get_decoder(), Some(DecoderWrapper::Fuse(_))) && !has_merges(tokenizer),
        Some(_) => false,
    };
    let decoder = tokenizer.get_added_tokens_decoder();
    let simple = |t: &AddedToken| !t.lstrip && !t.rstrip && !t.content.contains(char::is_whitespace);
    plain && tokenizer.get_normalizer().is_none() && decoder.values().all(simple)
}

fn has_merges(tokenizer: &tokenizers::Tokenizer) -> bool {
    let ModelWrapper::BPE(bpe) = tokenizer.get_model() else { return true };
    // Merges make tokens of several characters, and nothing else does here.
    bpe.get_vocab().keys().any(|token| token.chars().count() > 1)
}

/// The same tokenizer, for which names of special tokens are text like any other.
pub(super) fn plain(tokenizer: &tokenizers::Tokenizer, json: &str) -> tokenizers::Tokenizer {
    let mut plain = tokenizer.clone();
    plain.set_encode_special_tokens(true);
    if matches!(tokenizer.get_model(), ModelWrapper::Unigram(_))
        && let Some(model) = without_special(json)
    {
        plain.with_model(model);
    }
    plain
}

/// A vocabulary whose special tokens are chosen for no text: those of a unigram are pieces like others.
fn without_special(json: &str) -> Option<ModelWrapper> {
    let mut document: Value = serde_json::from_str(json).ok()?;
    let special = document["added_tokens"].as_array()?.iter().filter(|token| token["special"] == true);
    let special: Vec<usize> = special.filter_map(|token| usize::try_from(token["id"].as_u64()?).ok()).collect();
    for id in special {
        if let Some(piece) = document["model"]["vocab"].get_mut(id).and_then(|piece| piece.get_mut(0)) {
            *piece = marked(piece.as_str().unwrap_or_default(), id).into();
        }
    }
    serde_json::from_value(document["model"].take()).ok()
}

/// A call into the library, which panics where a file is valid JSON and makes no sense.
pub(super) fn guarded<T>(source: &Path, call: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let words = panic_words(&*panic);
        Error::format(source, format!("the tokenizer crate refuses it: {words}; the file is damaged"))
    })
}
