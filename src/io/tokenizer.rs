//! Text ↔ token ids: tokenizers of Hugging Face, and three that need no download: bytes, characters, trained on the spot.
//!
//! There is one representation, the `tokenizer.json` of Hugging Face's library, so tokenizers trained here load there:
//! bytes are a byte-level BPE without merges, characters a BPE without merges over the text's alphabet.

use super::facts::{alphabet, divisible, ends, guarded, plain, prefix, roles, templates};
#[cfg(feature = "files")]
use super::file;
#[cfg(feature = "files")]
use super::folder::{TARGET_TOKENIZER, TOKENIZER, if_missing};
use super::pieces::{pieces, tried_pieces};
use super::text_stream::{TextOf, TextStream};
#[cfg(feature = "files")]
use super::vocabulary::files::beside;
use crate::error::{Error, Result};
use serde_json::{Value, json};
#[cfg(feature = "files")]
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The token that ends a text, in tokenizers that are trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Texts up to this size are encoded in one piece where cutting them might change tokens, and on one core: threads keep
/// their allocations.
const WHOLE: usize = 4 << 20;
/// Longer ones in pieces of about this size.
pub(super) const PIECE: usize = 1 << 14;
/// Pieces that are encoded at a time: the encoding of a character takes a hundred bytes.
const PIECES: usize = 8;

/// A tokenizer. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    /// That of answers, where they have a vocabulary of their own.
    answers: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    source: PathBuf,
    tokenizer: tokenizers::Tokenizer,
    /// The same, with names of special tokens as mere text.
    plain: OnceLock<tokenizers::Tokenizer>,
    json: String,
    vocab_size: usize,
    roles: BTreeMap<&'static str, (String, u32)>,
    /// Tokens that end an answer.
    ends: Vec<u32>,
    /// The tokens put before a text for the model.
    prefix: Vec<u32>,
    /// Names of templates of conversations, and these.
    chat_templates: Vec<(String, String)>,
    /// The characters it knows, if it would silently drop the others.
    alphabet: Option<HashSet<char>>,
    /// Whether cutting a text before a blank leaves its tokens the same.
    divisible: bool,
}

/// The tokens of a text, with the ranges that map them back to it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Encoding {
    /// The tokens.
    pub ids: Vec<u32>,
    /// 0 for the first text, 1 for the second.
    pub type_ids: Vec<u32>,
    /// The bytes of its text that each token stands for.
    pub offsets: Vec<(usize, usize)>,
    /// Which text a token belongs to (0 or 1); none for special tokens.
    pub sequences: Vec<Option<usize>>,
    /// The number of the word within its text; none for special tokens.
    pub words: Vec<Option<u32>>,
}

impl Tokenizer {
    /// Opens a `tokenizer.json`, or the one in a folder, with the roles that a `tokenizer_config.json` beside it gives.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Format`] if it is damaged.
    #[cfg(feature = "files")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join(TOKENIZER) } else { path.to_owned() };
        let json =
            file::read_text(&path).map_err(|e| if_missing(e, "give a tokenizer.json or the folder that holds one"))?;
        let plain = match file::plain_json(&json) {
            Cow::Owned(plain) => Some(plain),
            Cow::Borrowed(_) => None,
        };
        let json = plain.unwrap_or(json);
        let names = beside(file::parent(&path))?;
        let target = path.with_file_name(TARGET_TOKENIZER);
        let tokenizer = Self::new(path, json, &names)?;
        match target.symlink_metadata() {
            Ok(_) => Ok(tokenizer.with_answers(&Self::new(target.clone(), file::read_text(&target)?, &names)?)),
            Err(_) => Ok(tokenizer),
        }
    }

    /// A tokenizer from the text of a `tokenizer.json`; `label` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Format`] if it is damaged.
    pub fn from_json(label: impl Into<PathBuf>, json: String) -> Result<Self> {
        Self::new(label.into(), json, &[])
    }

    /// As [`Tokenizer::from_json`], with objects that name special tokens by their roles, as `tokenizer_config.json` does.
    pub(super) fn from_json_with(label: impl Into<PathBuf>, json: String, roles: &[Value]) -> Result<Self> {
        Self::new(label.into(), json, roles)
    }

    fn new(source: PathBuf, json: String, names: &[Value]) -> Result<Self> {
        let refused = |e: tokenizers::Error| {
            Error::format(
                &source,
                format!("is not a readable tokenizer ({e}); save it again with a current version of tokenizers"),
            )
        };
        // The library panics where a part of the file breaks off, so that the syntax is looked at first.
        serde_json::from_str::<serde::de::IgnoredAny>(&json).map_err(|e| refused(e.into()))?;
        let mut tokenizer =
            guarded(&source, || tokenizers::Tokenizer::from_bytes(json.as_bytes()))?.map_err(refused)?;
        // Lengths are the caller's business here; the file as it is saved keeps these settings.
        tokenizer.with_truncation(None).map_err(refused)?;
        tokenizer.with_padding(None);
        let vocab_size = tokenizer.get_vocab(true).values().max().map_or(0, |&largest| largest as usize + 1);
        let roles = roles(&tokenizer, names);
        let alphabet = alphabet(&tokenizer);
        let divisible = divisible(&tokenizer);
        let ends = ends(&tokenizer, names);
        let prefix = prefix(&source, &tokenizer);
        let (plain, chat_templates) = (OnceLock::new(), templates(names));
        let inner = Inner {
            source,
            tokenizer,
            plain,
            json,
            vocab_size,
            roles,
            ends,
            prefix,
            chat_templates,
            alphabet,
            divisible,
        };
        Ok(Self { inner: Arc::new(inner), answers: None })
    }

    /// The `tokenizer.json`.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.inner.json
    }

    /// Writes the `tokenizer.json`, atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    #[cfg(feature = "files")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        file::write_atomic(path, self.inner.json.as_bytes())
    }

    /// The `tokenizer_config.json` for Hugging Face's libraries.
    #[must_use]
    pub fn hugging_face_config(&self) -> Value {
        let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false});
        for (role, (token, _)) in &self.inner.roles {
            config[format!("{role}_token")] = json!(token);
        }
        let named = |(name, template): &(String, String)| json!({"name": name, "template": template});
        match self.inner.chat_templates.as_slice() {
            [] => {}
            [(_, one)] => config["chat_template"] = json!(one),
            several => config["chat_template"] = several.iter().map(named).collect(),
        }
        config
    }

    /// The rows an embedding table needs: one more than the largest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.vocab_size
    }

    /// The token that ends a text, if it is known.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.special("eos")
    }

    /// The token that begins a text, if it is known.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.special("bos")
    }

    /// The token of a role: `bos`, `eos`, `pad`, `unk`, `cls`, `sep` or `mask`.
    #[must_use]
    pub fn special(&self, role: &str) -> Option<u32> {
        self.inner.roles.get(role).map(|&(_, id)| id)
    }

    /// The tokens that end an answer: the end of a text that `tokenizer_config.json` names, and those that are known by name for
    /// the end of a text or of a turn, `<|eot_id|>` or `<|im_end|>`, if the file lists them apart from ordinary tokens.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.of_answers().ends
    }

    /// The special tokens that the model was trained to see in front of a text: mostly none or [`Tokenizer::bos`].
    #[must_use]
    pub fn prefix(&self) -> &[u32] {
        &self.inner.prefix
    }

    /// The file that it came from, its templates of conversations by their names, and its special tokens by their roles.
    pub(super) fn conversations(&self) -> (&Path, &[(String, String)], &BTreeMap<&'static str, (String, u32)>) {
        (&self.inner.source, &self.inner.chat_templates, &self.inner.roles)
    }

    /// Whether a token is a special one, which is no text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.tokenizer.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// What special tokens are written as.
    pub(super) fn special_names(&self) -> Vec<String> {
        let all = self.inner.tokenizer.get_added_tokens_decoder();
        all.values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content.clone())
            .collect()
    }

    /// The tokens of a text that is to be continued: with [`Tokenizer::prefix`] in front unless the text begins with it, and
    /// nothing behind.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.encode(text)?;
        let prefix = self.prefix();
        Ok(if ids.starts_with(prefix) { ids } else { [prefix, &ids].concat() })
    }

    /// The id of a token as it is written in the vocabulary.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// The token of an id as it is written in the vocabulary.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.tokenizer.id_to_token(id)
    }

    /// The tokens of a text, without special tokens around it. Long texts are cut into pieces and encoded on all cores.
    ///
    /// # Errors
    /// [`Error::Input`] if a character has no token, [`Error::Format`] if the tokenizer's file is damaged.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.check_alphabet(text)?;
        let Inner { source, tokenizer, .. } = &*self.inner;
        let pieces = match (self.inner.divisible, text.len() <= WHOLE) {
            (true, _) => pieces(text, PIECE),
            (false, true) => vec![text],
            (false, false) => tried_pieces(&|text: &str| self.encode_whole(text), text, PIECE)?,
        };
        let at_once = if text.len() <= WHOLE { 1 } else { PIECES };
        let mut ids = Vec::new();
        for pieces in pieces.chunks(at_once) {
            let encodings = guarded(source, || match *pieces {
                [piece] => tokenizer.encode_fast(piece, false).map(|encoding| vec![encoding]),
                _ => tokenizer.encode_batch_fast(pieces.to_vec(), false),
            });
            let encodings = encodings?.map_err(|e| self.unusable(e))?;
            if ids.is_empty() {
                // Enough if the rest is like this: a list that doubles takes three times what it ends with.
                let tokens: usize = encodings.iter().map(tokenizers::Encoding::len).sum();
                let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
                ids.reserve_exact((text.len() as f64 / bytes.max(1) as f64 * tokens as f64 * 1.02) as usize);
            }
            ids.extend(encodings.iter().flat_map(|e| e.get_ids().iter().copied()));
        }
        Ok(ids)
    }

    /// The tokens of a text that is encoded in one piece.
    fn encode_whole(&self, text: &str) -> Result<Vec<u32>> {
        let Inner { source, tokenizer, .. } = &*self.inner;
        let encoding = guarded(source, || tokenizer.encode_fast(text, false))?;
        Ok(encoding.map_err(|e| self.unusable(e))?.get_ids().to_vec())
    }

    /// The tokens of a text in which names of special tokens are text like any other, as those that a user types may be.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        self.check_alphabet(text)?;
        let plain = self.inner.plain.get_or_init(|| plain(&self.inner.tokenizer, &self.inner.json));
        let encoding = guarded(&self.inner.source, || plain.encode_fast(text, false))?;
        Ok(encoding.map_err(|e| self.unusable(e))?.get_ids().to_vec())
    }

    /// The tokens of a text, or of two (question and context), with the special tokens that the model was trained with.
    ///
    /// # Errors
    /// [`Error::Input`] if a character has no token, [`Error::Format`] if the tokenizer's file is damaged.
    pub fn encode_for_model(&self, text: &str, second: Option<&str>) -> Result<Encoding> {
        self.check_alphabet(text)?;
        self.check_alphabet(second.unwrap_or_default())?;
        let Inner { source, tokenizer, .. } = &*self.inner;
        let encoding = guarded(source, || match second {
            None => tokenizer.encode(text, true),
            Some(second) => tokenizer.encode((text, second), true),
        });
        let encoding = encoding?.map_err(|e| self.unusable(e))?;
        let special = encoding.get_special_tokens_mask();
        let ordinary = |i: usize| special.get(i).is_none_or(|&s| s == 0);
        let sequences = encoding.get_sequence_ids().into_iter().enumerate();
        Ok(Encoding {
            ids: encoding.get_ids().to_vec(),
            type_ids: encoding.get_type_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            sequences: sequences.map(|(i, s)| s.filter(|_| ordinary(i))).collect(),
            words: encoding.get_word_ids().to_vec(),
        })
    }

    fn check_alphabet(&self, text: &str) -> Result<()> {
        let Some(alphabet) = &self.inner.alphabet else { return Ok(()) };
        match text.chars().find(|c| !alphabet.contains(c)) {
            None => Ok(()),
            Some(c) => Err(Error::input(
                "text",
                format!(
                    "the character {c:?} has no token: it did not occur in the text that {} was made of",
                    self.inner.source.display()
                ),
            )),
        }
    }

    fn unusable(&self, error: tokenizers::Error) -> Error {
        Error::input("text", format!("the tokenizer {} could not encode it: {error}", self.inner.source.display()))
    }

    /// The text of tokens of an answer, without special ones. Ids beyond the vocabulary (of a padded embedding table) give nothing, bytes
    /// that are no UTF-8 give `U+FFFD`.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer's decoder fails, [`Error::Format`] if its file is damaged.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_with(ids, true)
    }

    /// As [`Tokenizer::decode`], the special tokens as they are written in the vocabulary unless they are skipped.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer's decoder fails, [`Error::Format`] if its file is damaged.
    pub fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let Inner { source, tokenizer, .. } = &**self.of_answers();
        let decoded = guarded(source, || tokenizer.decode(ids, skip_special))?;
        decoded.map_err(|e| Error::input("tokens", format!("they could not be decoded: {e}")))
    }

    /// [`Tokenizer::decode`] as a function of its own.
    #[must_use]
    pub fn text_of(&self) -> TextOf {
        let tokenizer = self.clone();
        Arc::new(move |ids| tokenizer.decode(ids))
    }

    /// A stream that gives text as tokens come.
    #[must_use]
    pub fn stream(&self) -> TextStream {
        TextStream::new(self.text_of())
    }
}

#[path = "tokenizer_answers.rs"]
mod answers;
#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
