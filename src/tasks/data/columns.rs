//! The fields of a record, by known names and by given ones.

use super::Record;
use super::json::kind;
use crate::error::{Error, Result};
use derive_setters::Setters;
use serde_json::Value;

/// The names of columns, where they are not those that examples know. In an object `translation`, as of parallel texts by their languages,
/// names are found as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct Columns {
    /// The text, or the first of two.
    pub text: Option<String>,
    /// The second text.
    pub second: Option<String>,
    /// The label or labels of a text.
    pub label: Option<String>,
    /// The words of a sentence.
    pub tokens: Option<String>,
    /// The tags of words.
    pub tags: Option<String>,
    /// The labelled parts of a text.
    pub spans: Option<String>,
    /// The name of a question.
    pub id: Option<String>,
    /// The question.
    pub question: Option<String>,
    /// The text that answers it.
    pub context: Option<String>,
    /// The answers.
    pub answers: Option<String>,
    /// The text to read.
    pub source: Option<String>,
    /// The text to write.
    pub target: Option<String>,
}

/// A field: its name and what it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) record: &'a Record,
    pub(super) name: &'a str,
    pub(super) value: &'a Value,
}

impl Record {
    /// An error about this record.
    pub fn error(&self, message: impl std::fmt::Display) -> Error {
        self.place.error(message)
    }

    /// A field, if it is there and not null: by its name, else by its name in another case, else within `translation`.
    pub(super) fn get<'a>(&'a self, name: &'a str) -> Option<Field<'a>> {
        let exact = |name: &str| self.fields.get_key_value(name);
        let found = exact(name)
            .or_else(|| self.fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
            .or_else(|| self.fields.get("translation")?.as_object()?.get_key_value(name));
        let (name, value) = found?;
        (!value.is_null()).then_some(Field { record: self, name, value })
    }

    /// The field with the given name, else the first of the known ones that is there.
    ///
    /// # Errors
    /// [`Error::Format`] if a name is given and no field has it.
    pub(super) fn find<'a>(&'a self, given: Option<&'a String>, known: &[&'a str]) -> Result<Option<Field<'a>>> {
        match given {
            Some(name) => match self.get(name) {
                None if !self.fields.contains_key(name) => Err(self.missing(&[name])),
                field => Ok(field),
            },
            None => Ok(known.iter().find_map(|name| self.get(name))),
        }
    }

    /// As [`Record::find`], but it must be there.
    pub(super) fn require<'a>(&'a self, given: Option<&'a String>, known: &[&'a str]) -> Result<Field<'a>> {
        self.find(given, known)?.ok_or_else(|| match given {
            Some(name) => self.missing(&[name]),
            None => self.missing(known),
        })
    }

    /// The error for a field that is not there.
    pub(super) fn missing(&self, wanted: &[&str]) -> Error {
        let wanted: Vec<String> = wanted.iter().map(|name| format!("{name:?}")).collect();
        let has: Vec<String> = self.fields.keys().map(|name| format!("{name:?}")).collect();
        let (wanted, has) = (wanted.join(" or "), has.join(", "));
        self.error(format!("no field {wanted}; the fields are {has}: name the one to take"))
    }
}

impl Field<'_> {
    pub(super) fn error(&self, expected: &str) -> Error {
        self.record.error(format!("field {:?} is {}, {expected} was expected", self.name, kind(self.value)))
    }

    /// A text; a number or truth value as it is written.
    pub(super) fn text(&self) -> Result<String> {
        plain_text(self.value).ok_or_else(|| self.error("a text"))
    }

    /// A list of texts; of one text its words.
    pub(super) fn words(&self) -> Result<Vec<String>> {
        match self.value {
            Value::String(text) => Some(text.split_whitespace().map(str::to_owned).collect()),
            Value::Array(values) => values.iter().map(plain_text).collect::<Option<_>>(),
            _ => None,
        }
        .ok_or_else(|| self.error("a list of texts"))
    }
}

/// A text; a number or truth value as it is written.
pub(super) fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Where a character of a text begins, in bytes; one past the last is the text's end.
pub(super) fn byte_of(text: &str, character: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(character)
}
