//! The tokenizer in a file's metadata, as a `tokenizer.json`.

use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::io::tokenizer::Tokenizer;
use crate::io::vocabulary::byte_level::{ByteLevel, character};
use crate::io::vocabulary::sentencepiece::{Algorithm, BLANK, Kind, Piece, SentencePiece};
use crate::io::vocabulary::wordpiece::{WITHIN, WordPiece};
use crate::io::vocabulary::words::Rule;
use crate::io::vocabulary::{Around, Mark, added, distinct, marked};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const TEMPLATE: &str = "tokenizer.chat_template";

/// The tokenizer; `None` if the file has none.
///
/// # Errors
/// [`crate::Error::Format`] that names the key whose value is missing, wrong or not supported.
pub(super) fn tokenizer(metadata: &Metadata<'_>) -> Result<Option<Tokenizer>> {
    let Some(model) = metadata.text(MODEL)? else { return Ok(None) };
    let make = match model {
        "gpt2" => byte_level,
        "llama" => merged_pieces,
        "t5" => unigram,
        "bert" => word_piece,
        "no_vocab" | "none" => return Ok(None),
        other => {
            let message = format!(
                "is \"{other}\"; gpt2, llama, t5 and bert are read. A folder with the model's tokenizer.json works as well"
            );
            return Err(metadata.refuse(MODEL, message));
        }
    };
    let tokens = metadata.expect_bytes(TOKENS)?;
    let (document, names) = make(metadata, &Vocabulary::of(metadata, &tokens)?)?;
    let mut roles = json!({});
    for (role, key) in ROLES {
        if let Some(token) = metadata.token(key, names.len())?.and_then(|id| names.get(id as usize)) {
            roles[format!("{role}_token")] = json!(token);
        }
    }
    if let Some(templates) = templates(metadata)? {
        roles["chat_template"] = templates;
    }
    Tokenizer::from_json_with(metadata.path, document.to_string(), &[roles]).map(Some)
}

/// Roles of tokens, and what files call them.
pub(super) const ROLES: [(&str, &str); 7] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("pad", "padding"),
    ("cls", "cls"),
    // So it is written in the format.
    ("sep", "seperator"),
    ("mask", "mask"),
];

/// The templates of conversations: the main one, and others by their names.
fn templates(metadata: &Metadata<'_>) -> Result<Option<Value>> {
    let main = metadata.text(TEMPLATE)?;
    let mut named = Vec::new();
    for key in metadata.values.keys() {
        if let Some(name) = key.strip_prefix(TEMPLATE).and_then(|rest| rest.strip_prefix('.')) {
            named.push(json!({"name": name, "template": metadata.text(key)?}));
        }
    }
    let main = main.map(|template| json!({"name": "default", "template": template}));
    let all: Vec<Value> = main.into_iter().chain(named).collect();
    Ok((!all.is_empty()).then_some(Value::Array(all)))
}

/// The tokens of a file with their types.
struct Vocabulary<'a> {
    tokens: &'a [&'a [u8]],
    kinds: Vec<Kind>,
}

/// A `tokenizer.json`, and its tokens as they are written there.
type Made = (Value, Vec<String>);

impl<'a> Vocabulary<'a> {
    fn of(metadata: &Metadata<'_>, tokens: &'a [&'a [u8]]) -> Result<Self> {
        let types = metadata.integers(TYPES, tokens.len())?;
        let kinds = match types {
            Some(types) => types.into_iter().map(Kind::of).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        Ok(Self { tokens, kinds })
    }

    /// The tokens as text, and how many are not UTF-8.
    fn texts(&self) -> (Vec<Cow<'a, str>>, usize) {
        let texts: Vec<Cow<'a, str>> = self.tokens.iter().map(|token| String::from_utf8_lossy(token)).collect();
        let broken = texts.iter().filter(|text| matches!(text, Cow::Owned(_))).count();
        (texts, broken)
    }

    /// Tokens that are found in a text first.
    fn added(&self, names: &[String]) -> Vec<Value> {
        let known = self.kinds.iter().zip(names).enumerate();
        let token = |(id, (kind, name)): (usize, (&Kind, &String))| match kind {
            Kind::Control => Some(added(id, name, true)),
            Kind::UserDefined => Some(added(id, name, false)),
            _ => None,
        };
        known.filter_map(token).collect()
    }
}

/// Says how many tokens are left aside.
fn warn(metadata: &Metadata<'_>, count: usize, what: &str) {
    if count > 0 {
        log::warn!("{}: {count} tokens {what}; no text is encoded as them", metadata.path.display());
    }
}

/// The token that stands in front of texts (`bos`) or behind them (`eos`), where the file or else its kind says so.
fn mark<'a>(
    metadata: &Metadata<'_>,
    names: &'a [String],
    role: &str,
    (add, usual): (bool, Option<usize>),
) -> Result<Option<Mark<'a>>> {
    if !metadata.flag(&format!("tokenizer.ggml.add_{role}_token"))?.unwrap_or(add) {
        return Ok(None);
    }
    // A separator's key has a slip in it.
    let key = if role == "sep" { "seperator" } else { role };
    let id = metadata.token(key, names.len())?.map(|id| id as usize).or(usual);
    Ok(id.and_then(|id| Some(Mark { token: names.get(id)?, id })))
}

fn byte_level(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Made> {
    let pre = metadata.text(PRE)?.unwrap_or("default");
    let rule = Rule::named(pre).ok_or_else(|| {
        let all: Vec<&str> = Rule::names().collect();
        let message = format!(
            "is \"{pre}\"; supported are {}. A folder with the model's tokenizer.json works as well",
            all.join(", ")
        );
        metadata.refuse(PRE, message)
    })?;
    let (texts, broken) = vocabulary.texts();
    // Bytes that are no text come out as they are when the token is generated.
    let text = |(id, text): (usize, Cow<'_, str>)| match text {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(_) => marked(&vocabulary.tokens[id].iter().map(|&byte| character(byte)).collect::<String>(), id),
    };
    let (names, repeated) = distinct(texts.into_iter().enumerate().map(text));
    warn(metadata, repeated, "are empty or occur twice");
    warn(metadata, broken, "are not UTF-8");
    let before = mark(metadata, &names, "bos", (rule.begins, None))?;
    let behind = mark(metadata, &names, "sep", (rule.ends, None))?;
    let behind = if behind.is_some() { behind } else { mark(metadata, &names, "eos", (false, None))? };
    let around = Around { before, behind, types: false }.to_json();
    let known: BTreeMap<&str, usize> = names.iter().enumerate().map(|(id, name)| (name.as_str(), id)).collect();
    let mut merges = merges(metadata)?;
    // Those of a token that is marked make nothing.
    merges.retain(|[left, right]| {
        [left, right, &format!("{left}{right}")].iter().all(|token| known.contains_key(token.as_str()))
    });
    let made = ByteLevel {
        vocabulary: known,
        merges,
        rule,
        added: vocabulary.added(&names),
        marked: repeated + broken > 0,
        normalizer: Value::Null,
    };
    Ok((made.document(around), names))
}

fn merges(metadata: &Metadata<'_>) -> Result<Vec<[String; 2]>> {
    let pair = |merge: &str| {
        let pair = merge.split_once(' ').filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(' '));
        let pair = pair.map(|(a, b)| [a.to_owned(), b.to_owned()]);
        pair.ok_or_else(|| metadata.refuse(MERGES, format!("holds {merge:?}, which is not a pair of tokens")))
    };
    metadata.expect_texts(MERGES)?.iter().map(|merge| pair(merge)).collect()
}

fn merged_pieces(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Made> {
    let spm = pieces(metadata, vocabulary, (Algorithm::Merges, 0))?;
    let names = spm_names(&spm);
    let before = mark(metadata, &names, "bos", (true, Some(1)))?;
    let behind = mark(metadata, &names, "eos", (false, Some(2)))?;
    let around = Around { before, behind, types: false }.to_json();
    let document = spm.document(around).map_err(|message| Error::format(metadata.path, message))?;
    Ok((document, names))
}

fn unigram(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Made> {
    let mut spm = pieces(metadata, vocabulary, (Algorithm::Unigram, 2))?;
    spm.removes_blanks = metadata.flag("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false);
    if let Some(bytes) = metadata.all_integers(CHARSMAP)? {
        spm.charsmap = bytes.into_iter().map(|byte| byte as u8).collect();
    }
    let names = spm_names(&spm);
    let before = mark(metadata, &names, "bos", (false, None))?;
    let behind = mark(metadata, &names, "eos", (true, Some(1)))?;
    let around = Around { before, behind, types: false }.to_json();
    let document = spm.document(around).map_err(|message| Error::format(metadata.path, message))?;
    Ok((document, names))
}

fn spm_names(spm: &SentencePiece) -> Vec<String> {
    spm.pieces.iter().map(|piece| piece.text.clone()).collect()
}

/// The pieces of a vocabulary with scores; `unknown` is the usual number of the piece for what is unknown.
fn pieces(
    metadata: &Metadata<'_>,
    vocabulary: &Vocabulary<'_>,
    (algorithm, unknown): (Algorithm, usize),
) -> Result<SentencePiece> {
    let (texts, broken) = vocabulary.texts();
    warn(metadata, broken, "are not UTF-8");
    let scores = metadata.numbers(SCORES, texts.len())?.unwrap_or_else(|| vec![0.0; texts.len()]);
    if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
        return Err(metadata.refuse(SCORES, format!("has {} for token {id}; a number is needed", scores[id])));
    }
    let piece = |((text, score), kind): ((Cow<'_, str>, f64), &Kind)| {
        let kind = if matches!(text, Cow::Owned(_)) { Kind::Unused } else { *kind };
        Piece { text: text.into_owned(), score: score as f32, kind }
    };
    let mut pieces: Vec<Piece> = texts.into_iter().zip(scores).zip(&vocabulary.kinds).map(piece).collect();
    let (_, repeated) = distinct(pieces.iter().map(|piece| piece.text.clone()));
    warn(metadata, repeated, "are empty or occur twice");
    if pieces.iter().all(|piece| piece.kind != Kind::Unknown) {
        let unknown = metadata.token("unknown", pieces.len())?.map_or(unknown, |id| id as usize);
        if let Some(piece) = pieces.get_mut(unknown).filter(|piece| piece.kind != Kind::Byte) {
            piece.kind = Kind::Unknown;
        }
    }
    Ok(SentencePiece {
        pieces,
        algorithm,
        charsmap: Vec::new(),
        begins_with_blank: metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(algorithm == Algorithm::Merges),
        removes_blanks: false,
        normalizers: Vec::new(),
        first_only: false,
    })
}

/// Files have U+2581 in front of tokens that begin a word, and nothing in front of those that go on.
fn word_piece(metadata: &Metadata<'_>, vocabulary: &Vocabulary<'_>) -> Result<Made> {
    let (texts, broken) = vocabulary.texts();
    warn(metadata, broken, "are not UTF-8");
    let text = |(text, kind): (Cow<'_, str>, &Kind)| match (text.strip_prefix(BLANK), kind) {
        (Some(begins), _) => begins.to_owned(),
        (None, Kind::Control | Kind::Unknown | Kind::UserDefined | Kind::Unused) => text.into_owned(),
        (None, _) => format!("{WITHIN}{text}"),
    };
    let (names, repeated) = distinct(texts.into_iter().zip(&vocabulary.kinds).map(text));
    warn(metadata, repeated, "are empty or occur twice");
    let find = |key: &str, usual: usize| -> Result<usize> {
        let id = metadata.token(key, names.len())?.map_or(usual, |id| id as usize);
        if id < names.len() {
            Ok(id)
        } else {
            Err(metadata.refuse(&format!("tokenizer.ggml.{key}_token_id"), "is missing"))
        }
    };
    let unknown = find("unknown", 100)?;
    let usual = match metadata.token("cls", names.len())? {
        Some(id) => id as usize,
        None => 101,
    };
    let before = mark(metadata, &names, "bos", (true, Some(usual)))?;
    let behind = mark(metadata, &names, "sep", (true, Some(102)))?;
    // Vocabularies of small letters have no capital ones, but for signs such as that of the real numbers, which have no small form.
    let cased = vocabulary.kinds.iter().zip(&names).any(|(kind, name)| {
        let is_capital = |letter: char| letter.to_lowercase().ne(std::iter::once(letter));
        *kind == Kind::Normal && name.chars().any(is_capital)
    });
    let lower_case = metadata.flag("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(!cased);
    let special = vocabulary.kinds.iter().enumerate().filter(|(_, kind)| matches!(kind, Kind::Control | Kind::Unknown));
    let made = WordPiece {
        tokens: &names,
        unknown: &names[unknown],
        special: special.map(|(id, _)| id).collect(),
        lower_case,
        strip_accents: metadata.flag("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lower_case),
        chinese: true,
    };
    let around = Around { before, behind, types: true }.to_json();
    let document = made.document(around);
    Ok((document, names))
}
