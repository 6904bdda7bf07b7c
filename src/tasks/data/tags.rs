//! Words with tags.

use super::columns::Columns;
use super::spans::labelled_text;
use super::{Record, Span, SpanExample};
use crate::error::Result;
use crate::tasks::metrics::entities;

/// The fields of words.
const WORDS: [&str; 2] = ["tokens", "words"];
/// The fields of their tags.
const TAGS: [&str; 5] = ["tags", "ner_tags", "labels", "ner", "pos_tags"];

/// The words of a sentence and their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagExample {
    /// The words.
    pub words: Vec<String>,
    /// A tag for each word: a name, or a number as it is written. Empty if none are given.
    pub tags: Vec<String>,
}

impl TagExample {
    /// The example of a record: lists of words and of tags (or texts with blanks between them), else a text with labelled parts as
    /// [`SpanExample::from_record`] has it, whose tags are [`SpanExample::to_tags`].
    ///
    /// # Errors
    /// [`Error::Format`](crate::Error::Format) if there are neither words nor text, there are not as many tags as words, a given column is missing,
    /// or a field holds something else; those of [`SpanExample::to_tags`].
    pub fn from_record(record: &Record, columns: &Columns) -> Result<Self> {
        if let Some(example) = tagged_words(record, columns)? {
            return Ok(example);
        }
        let (text, spans) =
            labelled_text(record, columns)?.ok_or_else(|| record.missing(&["tokens", "words", "text"]))?;
        let labelled = spans.is_some();
        let example = SpanExample { text, spans: spans.unwrap_or_default() };
        let mut example = example.to_tags().map_err(|e| record.error(e))?;
        if !labelled {
            example.tags.clear();
        }
        Ok(example)
    }

    /// The words with one blank between them, and the entities of their tags: a tag `I-` that nothing begins, or that is of another class, begins one
    /// as well.
    #[must_use]
    pub fn to_spans(&self) -> SpanExample {
        let mut text = String::new();
        let mut ranges = Vec::with_capacity(self.words.len());
        for word in &self.words {
            if !ranges.is_empty() {
                text.push(' ');
            }
            ranges.push((text.len(), text.len() + word.len()));
            text.push_str(word);
        }
        let span = |entity: crate::tasks::metrics::Entity| {
            let (start, end) = (ranges.get(entity.first)?.0, ranges.get(entity.last)?.1);
            Some(Span { start, end, label: entity.class })
        };
        SpanExample { spans: entities(&self.tags).into_iter().filter_map(span).collect(), text }
    }
}

/// The words of a record, if it has some, and their tags.
pub(super) fn tagged_words(record: &Record, columns: &Columns) -> Result<Option<TagExample>> {
    let known: &[&str] = if columns.text.is_some() { &[] } else { &WORDS };
    let Some(words) = record.find(columns.tokens.as_ref(), known)? else { return Ok(None) };
    let words = words.words()?;
    let tags = match record.find(columns.tags.as_ref(), &TAGS)? {
        Some(tags) => tags.words()?,
        None => return Ok(Some(TagExample { words, tags: Vec::new() })),
    };
    match words.len() == tags.len() {
        true => Ok(Some(TagExample { words, tags })),
        false => Err(record.error(format!("{} words, but {} tags: one a word was expected", words.len(), tags.len()))),
    }
}
