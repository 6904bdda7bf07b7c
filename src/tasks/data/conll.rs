//! Sentences of CoNLL 2002, 2003 and their kin: a word a line, its tag in the last column.

use super::{Record, Source};
use crate::error::Result;
use serde_json::Value;

/// What stands between documents.
const DOCUMENT: &str = "-DOCSTART-";
/// How many rows decide about the format.
const ROWS: usize = 50;

/// Whether a text begins like sentences with tags of entities.
pub(super) fn begins(text: &str) -> bool {
    let mut rows = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).take(ROWS).peekable();
    if rows.peek().is_some_and(|row| row.starts_with(DOCUMENT)) {
        return true;
    }
    let width = rows.peek().map_or(0, |row| columns(row).len());
    width >= 2
        && rows.all(|row| columns(row).len() == width && columns(row).last().is_some_and(|tag| is_entity_tag(tag)))
}

/// Whether it is `O` or a mark of an entity's part and a class.
fn is_entity_tag(tag: &str) -> bool {
    tag == "O" || matches!(tag.as_bytes(), [b'B' | b'I' | b'L' | b'U' | b'E' | b'S', b'-', _, ..])
}

/// The columns of a line: between tabs if it has any, else between blanks.
fn columns(line: &str) -> Vec<&str> {
    match line.contains('\t') {
        true => line.split('\t').map(str::trim).collect(),
        false => line.split(' ').filter(|part| !part.is_empty()).collect(),
    }
}

pub(super) fn read(source: &Source) -> Result<Vec<Record>> {
    let rows = || source.lines().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with(DOCUMENT));
    let width = rows().find(|(_, line)| !line.starts_with('#')).map_or(0, |(_, line)| columns(line).len());
    let entities = rows().any(|(_, line)| columns(line).last() == Some(&"O"));
    let is_comment = |line: &str, columns: &[&str]| {
        let tagged = !entities || columns.last().is_some_and(|tag| is_entity_tag(tag));
        line.starts_with('#') && (columns.len() != width || !tagged)
    };
    let (mut records, mut sentence) = (Vec::new(), Sentence::default());
    for (at, line) in source.lines() {
        if line.trim().is_empty() || line.starts_with(DOCUMENT) {
            records.extend(sentence.end(source));
            continue;
        }
        let columns = columns(line);
        if is_comment(line, &columns) {
            continue;
        }
        match columns.as_slice() {
            [word, .., tag] if columns.len() == width && !word.is_empty() && !tag.is_empty() => {
                sentence.begin.get_or_insert(at);
                sentence.words.push((*word).into());
                sentence.tags.push((*tag).into());
            }
            [_] => return Err(source.error(at, "a word and its tag were expected, here is one column")),
            columns if columns.len() != width => {
                let message = format!("{} columns, but the first word has {width}", columns.len());
                return Err(source.error(at, message));
            }
            _ => return Err(source.error(at, "the word or the tag is empty")),
        }
    }
    records.extend(sentence.end(source));
    Ok(records)
}

#[derive(Default)]
struct Sentence {
    begin: Option<usize>,
    words: Vec<Value>,
    tags: Vec<Value>,
}

impl Sentence {
    /// Its record, if it has words; the next one begins.
    fn end(&mut self, source: &Source) -> Option<Record> {
        let Self { begin, words, tags } = std::mem::take(self);
        begin.map(|line| source.record(line, [("tokens", Value::from(words)), ("tags", Value::from(tags))]))
    }
}
