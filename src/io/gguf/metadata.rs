//! Access to a file's metadata by key, with precise errors: missing, of another kind, out of range.

use super::reader::{List, Value};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// The value that converters write for a missing token: -1.
const NONE: u64 = u32::MAX as u64;

/// The metadata of a file.
#[derive(Debug)]
pub(super) struct Metadata<'a> {
    pub(super) path: &'a Path,
    pub(super) values: BTreeMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    /// An error about a key.
    pub(super) fn refuse(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::format(self.path, format!("{key:?} {message}"))
    }

    fn of<T>(&self, key: &str, kind: &str, pick: impl Fn(Value<'a>) -> Option<T>) -> Result<Option<T>> {
        let Some(&value) = self.values.get(key) else { return Ok(None) };
        pick(value).map(Some).ok_or_else(|| self.refuse(key, format!("is not a {kind}")))
    }

    fn expect<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| self.refuse(key, "is missing: the file is not a complete model, or has another format"))
    }

    /// A count that is not negative.
    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        self.of(key, "whole number", |value| match value {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => u64::try_from(number).ok(),
            _ => None,
        })
    }

    pub(super) fn expect_count(&self, key: &str) -> Result<u64> {
        let found = self.count(key)?;
        self.expect(key, found)
    }

    /// The id of a token with a role. An id outside the vocabulary is ignored, with a warning unless it is the value that
    /// converters write for a missing token.
    pub(super) fn token(&self, role: &str, vocabulary: usize) -> Result<Option<u64>> {
        let key = format!("tokenizer.ggml.{role}_token_id");
        let id = self.of(&key, "whole number", |value| match value {
            Value::Unsigned(number) => Some(number),
            Value::Signed(number) => Some(u64::try_from(number).unwrap_or(NONE)),
            _ => None,
        })?;
        let Some(id) = id.filter(|&id| id != NONE) else { return Ok(None) };
        if id < vocabulary as u64 {
            return Ok(Some(id));
        }
        log::warn!("{}: {key:?} is {id}, but there are only {vocabulary} tokens: it is ignored", self.path.display());
        Ok(None)
    }

    /// A count, or a list of equal counts, one per layer.
    pub(super) fn layers_count(&self, key: &str) -> Result<Option<u64>> {
        let Some(Value::List(list)) = self.values.get(key) else { return self.count(key) };
        let counts = list.integers(key).ok_or_else(|| self.refuse(key, "is not a list of whole numbers"))?;
        let Some(&first) = counts.first() else { return Err(self.refuse(key, "is an empty list")) };
        if let Some(other) = counts.iter().find(|count| **count != first) {
            let message =
                format!("is {first} in some layers and {other} in others: layers that differ are not supported yet");
            return Err(self.refuse(key, message));
        }
        u64::try_from(first).map(Some).map_err(|_| self.refuse(key, "is not a whole number"))
    }

    pub(super) fn expect_layers_count(&self, key: &str) -> Result<u64> {
        let found = self.layers_count(key)?;
        self.expect(key, found)
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.of(key, "number", |value| match value {
            Value::Float(number) => Some(number),
            Value::Unsigned(number) => Some(number as f64),
            Value::Signed(number) => Some(number as f64),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.of(key, "flag", |value| match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.of(key, "text in UTF-8", |value| match value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    pub(super) fn expect_text(&self, key: &str) -> Result<&'a str> {
        let found = self.text(key)?;
        self.expect(key, found)
    }

    fn list(&self, key: &str) -> Result<Option<List<'a>>> {
        self.of(key, "list", |value| match value {
            Value::List(list) => Some(list),
            _ => None,
        })
    }

    pub(super) fn expect_texts(&self, key: &str) -> Result<Vec<Cow<'a, str>>> {
        Ok(self.expect_bytes(key)?.into_iter().map(String::from_utf8_lossy).collect())
    }

    /// Texts, which need not be UTF-8.
    pub(super) fn expect_bytes(&self, key: &str) -> Result<Vec<&'a [u8]>> {
        let list = self.expect(key, self.list(key)?)?;
        let texts = list.texts(key).ok_or_else(|| self.refuse(key, "is not a list of texts"))?;
        texts.map_err(|message| Error::format(self.path, message))
    }

    /// A list of so many items.
    fn list_of(&self, key: &str, count: usize) -> Result<Option<List<'a>>> {
        let list = self.list(key)?;
        match list.filter(|list| list.count() != count) {
            Some(list) => Err(self.refuse(key, format!("has {} items instead of {count}", list.count()))),
            None => Ok(list),
        }
    }

    /// A list of whole numbers.
    pub(super) fn all_integers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.integers(key).map(Some).ok_or_else(|| self.refuse(key, "is not a list of whole numbers"))
    }

    /// A list of flags; none if it is missing or no list.
    pub(super) fn all_flags(&self, key: &str) -> Result<Option<Vec<bool>>> {
        let Some(Value::List(list)) = self.values.get(key) else { return Ok(None) };
        list.flags(key).map(Some).ok_or_else(|| self.refuse(key, "is not a list of flags"))
    }

    /// A list of whole numbers, which must have `count` items.
    pub(super) fn integers(&self, key: &str, count: usize) -> Result<Option<Vec<i64>>> {
        self.list_of(key, count)?;
        self.all_integers(key)
    }

    /// A list of numbers, which must have `count` items.
    pub(super) fn numbers(&self, key: &str, count: usize) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list_of(key, count)? else { return Ok(None) };
        list.numbers(key).map(Some).ok_or_else(|| self.refuse(key, "is not a list of numbers"))
    }
}
