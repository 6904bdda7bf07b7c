//! Documents of the CoNLL 2012 task: a word a line, its mentions in the last column (Pradhan et al. 2012).

use super::{Record, Source};
use crate::error::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a document begins and ends with.
const BEGIN: &str = "#begin document";
const END: &str = "#end document";
/// The column of the word, from 0, and the fewest columns.
const WORD: usize = 3;
const LEAST: usize = 5;

/// Whether a text begins like such documents.
pub(super) fn begins(text: &str) -> bool {
    text.trim_start().starts_with(BEGIN)
}

/// A document as it is read.
#[derive(Default)]
struct Document {
    line: usize,
    name: String,
    text: String,
    /// Characters of the text.
    length: usize,
    clusters: BTreeMap<u64, Vec<[usize; 2]>>,
    /// For each cluster where its open mentions begin.
    open: BTreeMap<u64, Vec<usize>>,
}

/// Documents as records with `text`, words between blanks, `clusters` of places, and `document`.
pub(super) fn read(source: &Source) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut document: Option<Document> = None;
    for (at, line) in source.lines() {
        if let Some(name) = line.strip_prefix(BEGIN) {
            if let Some(unended) = document.take() {
                records.push(unended.end(source)?);
            }
            document = Some(Document { line: at, name: name.trim().to_owned(), ..Document::default() });
        } else if line.starts_with(END) {
            if let Some(document) = document.take() {
                records.push(document.end(source)?);
            }
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let missing = || source.error(at, format!("this word stands in front of a line {BEGIN:?}"));
            document.as_mut().ok_or_else(missing)?.add(source, at, line)?;
        }
    }
    if let Some(document) = document {
        records.push(document.end(source)?);
    }
    Ok(records)
}

impl Document {
    fn add(&mut self, source: &Source, at: usize, line: &str) -> Result<()> {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (Some(word), Some(marks)) = (columns.get(WORD), columns.last().filter(|_| columns.len() >= LEAST)) else {
            let message =
                format!("{} columns, but CoNLL 2012 has the word in the fourth and more behind", columns.len());
            return Err(source.error(at, message));
        };
        if !self.text.is_empty() {
            self.text.push(' ');
            self.length += 1;
        }
        let start = self.length;
        self.text.push_str(word);
        self.length += word.chars().count();
        for mark in marks.split('|').filter(|mark| !matches!(*mark, "-" | "_" | "*")) {
            let number = mark.trim_start_matches('(').trim_end_matches(')').parse::<u64>();
            let number =
                number.map_err(|_| source.error(at, format!("{mark:?} is no mark of mentions, as (3 or 3)")))?;
            let open = self.open.entry(number).or_default();
            if mark.starts_with('(') {
                open.push(start);
            }
            if mark.ends_with(')') {
                let begin = open.pop().ok_or_else(|| source.error(at, format!("{mark:?} is not opened before")))?;
                self.clusters.entry(number).or_default().push([begin, self.length]);
            }
        }
        Ok(())
    }

    fn end(self, source: &Source) -> Result<Record> {
        if let Some((number, _)) = self.open.iter().find(|(_, open)| !open.is_empty()) {
            return Err(source.error(self.line, format!("a mention of {number} is not closed in this document")));
        }
        let clusters: Vec<Value> = self.clusters.into_values().map(|cluster| json!(cluster)).collect();
        let fields = [("text", self.text.into()), ("clusters", clusters.into()), ("document", Value::from(self.name))];
        Ok(source.record(self.line, fields))
    }
}
