//! Texts with labelled parts.

use super::columns::{Columns, Field, byte_of};
use super::tags::tagged_words;
use super::{Record, TagExample};
use crate::error::{Error, Result};
use crate::tasks::metrics::words::is_combining;
use serde_json::Value;
use std::ops::Range;

/// The fields of a text.
const TEXT: [&str; 4] = ["text", "sentence", "content", "body"];
/// The fields of its labelled parts.
const SPANS: [&str; 4] = ["entities", "spans", "labels", "label"];
/// The keys of a part's label.
const LABEL: [&str; 3] = ["label", "entity_group", "type"];

/// A part of a text with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins, in bytes.
    pub start: usize,
    /// One past its end, in bytes.
    pub end: usize,
    /// Its label.
    pub label: String,
}

/// A text with labelled parts, which lie on borders of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanExample {
    /// The text.
    pub text: String,
    /// Its labelled parts.
    pub spans: Vec<Span>,
}

impl SpanExample {
    /// The example of a record: a text with a list of `{"start", "end", "label"}` or `[start, end, label]`, where `start` and `end` count
    /// characters (code points) and `end` is one past the last; else words and tags by [`TagExample::to_spans`].
    ///
    /// # Errors
    /// [`Error::Format`] if there is neither, a part lies outside of the text, a given column is missing, or a field holds something else.
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        // Words with tags may have "labels" and the plain text as well.
        let has_spans = columns.spans.is_some() || ["entities", "spans"].iter().any(|name| record.get(name).is_some());
        if !has_spans && let Some(words) = tagged_words(record, columns)? {
            return match words.tags.iter().find(|tag| tag.parse::<u64>().is_ok()) {
                Some(tag) => Err(record.error(format!("the tag {tag} is a number: parts need names such as B-PER"))),
                None => Ok(words.to_spans()),
            };
        }
        let found = labelled_text(record, columns)?;
        let (text, spans) = found.ok_or_else(|| record.missing(&["text", "tokens"]))?;
        Ok(Self { text, spans: spans.unwrap_or_default() })
    }

    /// The words of the text: runs of letters and digits with their accents, and each other mark alone. Where a labelled part begins or ends, words do, too.
    #[must_use]
    pub fn word_ranges(&self) -> Vec<Range<usize>> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || is_combining(c);
        let borders: std::collections::HashSet<usize> =
            self.spans.iter().flat_map(|span| [span.start, span.end]).collect();
        let mut words: Vec<Range<usize>> = Vec::new();
        let mut within = false;
        for (at, c) in self.text.char_indices() {
            let end = at + c.len_utf8();
            match words.last_mut() {
                Some(word) if within && is_word(c) && !borders.contains(&at) => word.end = end,
                _ if !c.is_whitespace() => words.push(at..end),
                _ => {}
            }
            within = is_word(c);
        }
        words
    }

    /// The words of the text with tags by IOB2: `B-` and `I-` with the label of the part they lie in, `O` outside.
    ///
    /// # Errors
    /// [`Error::Input`] if parts overlap, or one holds no word of the text.
    pub fn to_tags(&self) -> Result<TagExample> {
        let ranges = self.word_ranges();
        let mut tags = vec!["O".to_owned(); ranges.len()];
        for span in &self.spans {
            let first = ranges.partition_point(|word| word.start < span.start);
            let behind = ranges.partition_point(|word| word.start < span.end);
            let wrong = |what: &str| {
                Error::input("spans", format!("{:?} from byte {} to {} {what}", span.label, span.start, span.end))
            };
            if first >= behind {
                return Err(wrong("holds no word"));
            }
            for (i, tag) in tags[first..behind].iter_mut().enumerate() {
                if tag != "O" {
                    return Err(wrong("overlaps another one: a word can have one tag"));
                }
                *tag = format!("{}-{}", if i == 0 { 'B' } else { 'I' }, span.label);
            }
        }
        let words = ranges.into_iter().filter_map(|range| self.text.get(range)).map(str::to_owned).collect();
        Ok(TagExample { words, tags })
    }
}

/// The text of a record, and its labelled parts if they are given. `None` if it has words in place of a text.
pub(super) fn labelled_text(record: &Record, columns: &Columns) -> Result<Option<(String, Option<Vec<Span>>)>> {
    let Some(text) = record.find(columns.text.as_ref(), &TEXT)? else { return Ok(None) };
    let text = text.text()?;
    let Some(field) = record.find(columns.spans.as_ref(), &SPANS)? else { return Ok(Some((text, None))) };
    let entries = field.value.as_array().ok_or_else(|| field.error("a list of labelled parts"))?;
    let spans = entries.iter().map(|entry| span(&field, &text, entry)).collect::<Result<_>>()?;
    Ok(Some((text, Some(spans))))
}

fn span(field: &Field<'_>, text: &str, entry: &Value) -> Result<Span> {
    let label = || LABEL.iter().find_map(|key| entry.get(key)).and_then(Value::as_str);
    let parts = match entry.as_array().map(Vec::as_slice) {
        Some([start, end, label]) => (start.as_u64(), end.as_u64(), label.as_str()),
        _ => (entry["start"].as_u64(), entry["end"].as_u64(), label()),
    };
    let (Some(start), Some(end), Some(label)) = parts else {
        let message = format!("{entry} in {:?} should have \"start\", \"end\" and \"label\"", field.name);
        return Err(field.record.error(message));
    };
    let byte = |character: u64| usize::try_from(character).ok().and_then(|character| byte_of(text, character));
    match (byte(start), byte(end)) {
        (Some(from), Some(to)) if from < to => Ok(Span { start: from, end: to, label: label.to_owned() }),
        _ => {
            let length = text.chars().count();
            let message =
                format!("{label:?} from {start} to {end} is no part of the text, which has {length} characters");
            Err(field.record.error(message))
        }
    }
}
