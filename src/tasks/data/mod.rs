//! Files of examples, and the examples that tasks learn from.
//!
//! [`read_records`] reads CSV, TSV, JSON, CoNLL and lines of text as records of named fields. Each kind of example takes the fields that it knows by
//! the names that public data sets use, or by those that [`Columns`] gives, and refuses a record with the file, the line and what it looked for.
//!
//! Texts are UTF-8, or UTF-16 with its mark. Lines end in `\n`, `\r\n` or `\r`; within cells and texts these become `\n`. A NUL is an error.

mod class;
mod columns;
mod conll;
mod conll2012;
mod coref;
mod json;
mod lines;
mod pair;
mod question;
mod spans;
mod split;
mod squad;
mod table;
mod tags;

pub use class::ClassExample;
pub use columns::Columns;
pub use coref::CorefExample;
pub use lines::read_parallel;
pub use pair::PairExample;
pub use question::{Answer, QuestionExample};
pub use spans::{Span, SpanExample};
pub use split::{split, split_by_label};
pub use tags::TagExample;

use crate::error::{Error, Result};
use crate::io::file::{TEXT_LIMIT, read_pipe, write_atomic_with};
use crate::io::read_text;
use derive_setters::Setters;
use serde_json::{Map, Value};
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of standard input.
const STDIN: &str = "-";

/// Where an entry of a file stands; prints as `train.csv, line 7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The line on which it begins, from 1.
    pub line: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

impl Place {
    /// An error about what stands here.
    pub fn error(&self, message: impl Display) -> Error {
        Error::format(&self.path, format!("line {}: {message}", self.line))
    }
}

/// An entry of a file of examples: named fields, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its fields.
    pub fields: Map<String, Value>,
    /// Where it stands.
    pub place: Place,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Rows of cells between commas; between semicolons or tabs if the first row has no comma. A cell in quotation marks may hold line ends, and
    /// quotation marks twice.
    Csv,
    /// Rows of cells between tabs. If the quotation marks of a file are not those of [`Format::Csv`], they are characters like others.
    Tsv,
    /// Objects one after the other (JSON lines), an array of objects, an object with an array `data` of them, or SQuAD's articles, whose questions
    /// become records with `id`, `title`, `context`, `question`, `answers` and `is_impossible`.
    Json,
    /// A word a line, the word first and its tag last, sentences between blank lines: records with `tokens` and `tags`. Lines of `-DOCSTART-` and
    /// comments (`#`) are left out. Documents of CoNLL 2012 (`#begin document`) become records with `text`, `clusters` and `document`.
    Conll,
    /// A line a record: `text`, or `source` and `target` with a tab between them. Blank lines are left out.
    Lines,
}

impl Format {
    /// The names of formats in options.
    pub const NAMES: [(&str, Self); 6] = [
        ("csv", Self::Csv),
        ("tsv", Self::Tsv),
        ("json", Self::Json),
        ("jsonl", Self::Json),
        ("conll", Self::Conll),
        ("lines", Self::Lines),
    ];

    /// The format of a file: by its name's extension, else by what it begins with, which is never a table.
    fn of(source: &Source) -> Self {
        let extension = source.path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "json" | "jsonl" | "ndjson" => Self::Json,
            "conll" | "iob" | "iob2" | "bio" => Self::Conll,
            _ if conll2012::begins(&source.text) => Self::Conll,
            _ if json::begins(&source.text) => Self::Json,
            _ if conll::begins(&source.text) => Self::Conll,
            _ => Self::Lines,
        }
    }
}

/// How files of examples are read.
#[derive(Clone, Copy, Debug, Default, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct ReadOptions {
    /// The format of all files; `None`: by each file's name and content.
    pub format: Option<Format>,
    /// Whether the first row of tables is data as well. Its cells are then named `1`, `2` and so on.
    pub no_header: bool,
}

/// The records of files, one file after the other. `-` is standard input.
///
/// # Errors
/// [`Error::File`] if a file cannot be read; [`Error::Format`] with the file and the line if a file is not of its format or holds no records.
pub fn read_records(paths: &[PathBuf], options: &ReadOptions) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for path in paths {
        let source = Source::read(path)?;
        let more = match options.format.unwrap_or_else(|| Format::of(&source)) {
            Format::Csv => table::read(&source, table::delimiter(&source.text), options.no_header),
            Format::Tsv => table::read(&source, b'\t', options.no_header),
            Format::Json => json::read(&source),
            Format::Conll if conll2012::begins(&source.text) => conll2012::read(&source),
            Format::Conll => conll::read(&source),
            Format::Lines => lines::read(&source),
        }?;
        if more.is_empty() {
            return Err(Error::format(&source.path, "holds no examples"));
        }
        records.extend(more);
    }
    Ok(records)
}

/// Writes records as JSON lines, in one step.
///
/// # Errors
/// [`Error::File`] if it cannot be written; the old file is then untouched.
pub fn write_json_lines<'a>(path: impl AsRef<Path>, records: impl IntoIterator<Item = &'a Record>) -> Result<()> {
    write_atomic_with(path.as_ref(), |to| {
        for record in records {
            serde_json::to_writer(&mut *to, &record.fields)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// A file's text, whose lines end in `\n`.
struct Source {
    path: Arc<Path>,
    text: String,
}

impl Source {
    fn read(path: &Path) -> Result<Self> {
        match path.as_os_str() == STDIN {
            true => {
                let path = Path::new("standard input");
                Self::new(path, read_pipe(path, std::io::stdin().lock(), TEXT_LIMIT)?)
            }
            false => Self::new(path, read_text(path)?),
        }
    }

    fn new(path: &Path, mut text: String) -> Result<Self> {
        if text.contains('\r') {
            text = text.replace("\r\n", "\n").replace('\r', "\n");
        }
        let source = Self { path: path.into(), text };
        match source.text.find('\0') {
            Some(at) => {
                let line = 1 + line_ends(&source.text[..at]);
                Err(source.error(line, "a NUL is not text; if the file is UTF-16 without a mark, convert it to UTF-8"))
            }
            None => Ok(source),
        }
    }

    fn place(&self, line: usize) -> Place {
        Place { path: self.path.clone(), line }
    }

    fn error(&self, line: usize, message: impl Display) -> Error {
        self.place(line).error(message)
    }

    fn record<K: Into<String>>(&self, line: usize, fields: impl IntoIterator<Item = (K, Value)>) -> Record {
        Record { fields: fields.into_iter().map(|(key, value)| (key.into(), value)).collect(), place: self.place(line) }
    }

    /// Its lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.split_terminator('\n'))
    }
}

fn line_ends(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;
