//! Texts with labels.

use super::Record;
use super::columns::{Columns, plain_text};
use crate::error::Result;
use serde_json::Value;

/// The fields of a text.
const TEXT: [&str; 9] =
    ["text", "sentence", "sentence1", "premise", "question", "content", "body", "review", "utterance"];
/// The fields of two texts.
const PAIRS: [(&str, &str); 8] = [
    ("text", "text_pair"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "document"),
];
/// The fields of a label.
const LABEL: [&str; 8] = ["label", "labels", "class", "category", "target", "gold_label", "intent", "score"];
/// What stands in front of fastText's labels.
const FAST_TEXT: &str = "__label__";

/// A text, or two, with its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassExample {
    /// The text.
    pub text: String,
    /// The second text, of a pair.
    pub second: Option<String>,
    /// The labels: names of classes, or numbers as they are written. Empty if none are given.
    pub labels: Vec<String>,
}

impl ClassExample {
    /// The example of a record. Two texts are found by their names together, such as `premise` and `hypothesis`; where [`Columns::text`] is given,
    /// there is a second one only if [`Columns::second`] is. A label is a text, a number or a list of them; an empty text is none. Without a field
    /// of labels, words `__label__x` in front of the text are labels, as in fastText.
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) if there is no text, a given column is missing, or a field holds something else.
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        let given = columns.text.is_some() || columns.second.is_some();
        let pair = PAIRS.iter().find_map(|(first, second)| Some((record.get(first)?, record.get(second)?)));
        let (text, second) = match pair.filter(|_| !given) {
            Some((text, second)) => (text, Some(second)),
            None => (record.require(columns.text.as_ref(), &TEXT)?, record.find(columns.second.as_ref(), &[])?),
        };
        let mut text = text.text()?;
        let second = second.map(|second| second.text()).transpose()?.filter(|second| !second.is_empty());
        let labels = match record.find(columns.label.as_ref(), &LABEL)? {
            None if columns.label.is_none() => fast_text_labels(&mut text),
            None => Vec::new(),
            Some(field) => match field.value {
                Value::String(label) if label.is_empty() => Vec::new(),
                Value::Array(labels) => {
                    let labels = labels.iter().map(plain_text).collect::<Option<_>>();
                    labels.ok_or_else(|| field.error("a list of texts or numbers"))?
                }
                _ => vec![field.text()?],
            },
        };
        Ok(Self { text, second, labels })
    }
}

/// Takes the labels in front of a text off it.
fn fast_text_labels(text: &mut String) -> Vec<String> {
    let (mut labels, mut rest) = (Vec::new(), text.as_str());
    while let Some(label) = rest.strip_prefix(FAST_TEXT) {
        let (label, behind) = label.split_once(char::is_whitespace).unwrap_or((label, ""));
        labels.push(label.to_owned());
        rest = behind.trim_start();
    }
    if !labels.is_empty() {
        *text = rest.to_owned();
    }
    labels
}
