//! Replaces `tokenizer.rs` without the feature `tokenizers`: the text of a tokenizer is kept, for copies of the model and for
//! other libraries; texts are not encoded.

#[cfg(feature = "files")]
use super::file;
#[cfg(feature = "files")]
use super::folder::{TOKENIZER, if_missing};
#[cfg(feature = "files")]
use super::vocabulary::files::beside;
use crate::error::{Error, Result};
use serde_json::{Value, json};
#[cfg(feature = "files")]
use std::path::Path;
use std::path::PathBuf;

/// A tokenizer's text. Encoding and decoding needs the feature `tokenizers`.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    json: String,
    roles: Vec<Value>,
    answers: Option<String>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a folder.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read, [`Error::Format`] if it is not JSON.
    #[cfg(feature = "files")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join(TOKENIZER) } else { path.to_owned() };
        let json =
            file::read_text(&path).map_err(|e| if_missing(e, "give a tokenizer.json or the folder that holds one"))?;
        let roles = beside(file::parent(&path))?;
        Self::from_json_with(path, json, &roles)
    }

    /// A tokenizer from the text of a `tokenizer.json`; `label` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not JSON.
    pub fn from_json(label: impl Into<PathBuf>, json: String) -> Result<Self> {
        Self::from_json_with(label, json, &[])
    }

    /// As [`Tokenizer::from_json`], with objects that name special tokens by their roles, as `tokenizer_config.json` does.
    pub(super) fn from_json_with(label: impl Into<PathBuf>, json: String, roles: &[Value]) -> Result<Self> {
        let checked = serde_json::from_str::<serde::de::IgnoredAny>(&json);
        checked.map_err(|e| Error::format(label.into(), format!("is not valid JSON: {e}")))?;
        Ok(Self { json, roles: roles.to_vec(), answers: None })
    }

    /// The same, whose answers have the vocabulary of another tokenizer.
    #[must_use]
    pub fn with_answers(self, answers: &Self) -> Self {
        Self { answers: Some(answers.json.clone()), ..self }
    }

    /// The `tokenizer.json` of answers, where they have a vocabulary of their own.
    #[must_use]
    pub fn answers_json(&self) -> Option<&str> {
        self.answers.as_deref()
    }

    /// The `tokenizer.json`.
    #[must_use]
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// Writes the `tokenizer.json`, atomically.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be written.
    #[cfg(feature = "files")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        file::write_atomic(path, self.json.as_bytes())
    }

    /// The `tokenizer_config.json` for Hugging Face's libraries.
    #[must_use]
    pub fn hugging_face_config(&self) -> Value {
        let mut config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false});
        for role in ["bos", "eos", "pad", "unk", "cls", "sep", "mask"] {
            let key = format!("{role}_token");
            let named = self.roles.iter().find_map(|names| names.get(&key).filter(|token| !token.is_null()));
            if let Some(token) = named {
                config[key] = token.clone();
            }
        }
        config
    }
}
