//! The commands that use a model for a task: they read texts and print what the model says.

mod answer;
mod classify;
mod coref;
mod embed;
mod fill;
mod run;
mod score;
mod search;
mod search_eval;
mod tag;
mod write;

pub(super) use answer::run as answer;
pub(super) use classify::run as classify;
pub(super) use coref::run as coref;
pub(super) use embed::run as embed;
pub(super) use fill::run as fill;
pub(super) use run::run;
pub(super) use score::run as score;
pub(super) use search::run as search;
pub(super) use tag::run as tag;
pub(super) use write::run as write;

use super::args::ApplyArgs;
use super::device::Device;
use super::progress::{Progress, SOON};
use super::{model, outln, prompts};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::io::{ModelFolder, Tokenizer};
use crate::models::{self, Model};
use crate::program::Weights;
use crate::tasks::apply::TaskFile;
use crate::tasks::data::{Columns, Record, read_records};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Texts that are read between two prints.
const CHUNK: usize = 256;

/// A model that was opened for a task.
pub(super) struct Opened {
    pub(super) device: Device,
    pub(super) folder: ModelFolder,
    pub(super) model: Arc<dyn Model>,
    pub(super) weights: Weights,
    pub(super) tokenizer: Tokenizer,
    pub(super) file: TaskFile,
}

impl Opened {
    pub(super) fn new(options: &ApplyArgs) -> Result<Self> {
        let device = Device::open(&options.common)?;
        let folder = model::opened(&options.model, options.lora.as_deref())?;
        let tokenizer = folder.expect_tokenizer()?.clone();
        let (model, weights) = models::load_model(&device.gpu, &folder, options.dtype.map(DType::from))?;
        let model: Arc<dyn Model> = model.into();
        let beside = options.lora.as_deref().filter(|adapter| adapter.join(crate::io::TASK).exists());
        let place = beside.unwrap_or(&options.model);
        let mut file = TaskFile::of(place, model.as_ref())?;
        file.context = options.context.or(file.context);
        Ok(Self { device, folder, model, weights, tokenizer, file })
    }

    /// The most tokens of a text.
    pub(super) fn longest(&self) -> usize {
        self.file.context.unwrap_or(usize::MAX)
    }
}

/// The records that a command reads: texts of the command line, files, or what is piped in.
fn records(options: &ApplyArgs) -> Result<Vec<Record>> {
    let mut records: Vec<Record> = options.text.iter().zip(1..).map(|(text, number)| given(text, number)).collect();
    if !options.files.is_empty() {
        records.extend(read_records(&options.files, &options.examples.options())?);
    } else if records.is_empty() {
        if !prompts::is_piped() {
            return Err(Error::input("text", "there is none: give files, --text TEXT, or pipe some in"));
        }
        records = read_records(&[PathBuf::from("-")], &options.examples.options())?;
    }
    Ok(records)
}

/// A text of the command line.
fn given(text: &str, number: usize) -> Record {
    let place = crate::tasks::data::Place { path: Path::new("--text").into(), line: number };
    let fields = Map::from_iter([("text".to_owned(), Value::from(text))]);
    Record { fields, place }
}

/// The text of a record: by its usual names, or else its only field.
fn text_of(record: &Record, columns: &Columns) -> Result<String> {
    let named = columns.text.as_deref().or(columns.source.as_deref());
    let usual = ["text", "sentence", "source", "content", "body"];
    let field = match named {
        Some(name) => record.fields.get(name),
        None => usual.iter().find_map(|name| record.fields.get(*name)).or_else(|| match record.fields.len() {
            1 => record.fields.values().next(),
            _ => None,
        }),
    };
    match field.and_then(Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let known: Vec<&str> = record.fields.keys().map(String::as_str).collect();
            Err(record.error(format!(
                "there is no text in it; its fields are {}: name one with --column text=NAME",
                known.join(", ")
            )))
        }
    }
}

/// Prints a record with what was found about it, as a line of JSON.
fn print_found(record: &Record, found: Vec<(&str, Value)>) -> Result<()> {
    let mut fields = record.fields.clone();
    fields.extend(found.into_iter().map(|(name, value)| (name.to_owned(), value)));
    outln!("{}", json!(fields))
}

/// Works through records, some at a time, with progress; `work` prints what it finds.
fn in_chunks(
    records: &[Record],
    what: &'static str,
    mut work: impl FnMut(&[Record], &mut dyn FnMut(usize)) -> Result<()>,
) -> Result<()> {
    with_progress(records.len(), what, |done| {
        let mut before = 0;
        for chunk in records.chunks(CHUNK) {
            work(chunk, &mut |read| done(before + read.min(chunk.len())))?;
            before += chunk.len();
            done(before);
        }
        Ok(())
    })
}

/// Works on so many items with progress; `work` tells how many are done.
pub(super) fn with_progress<T>(
    count: usize,
    what: &'static str,
    work: impl FnOnce(&mut dyn FnMut(usize)) -> Result<T>,
) -> Result<T> {
    let bar = Progress::new(count as u64, what, SOON * 4);
    bar.set_message("reading");
    let mut seen = 0;
    let made = work(&mut |done| {
        for _ in seen..done.min(count) {
            bar.inc();
        }
        seen = seen.max(done.min(count));
    })?;
    bar.finish();
    Ok(made)
}

/// A text on one line, cut where it is long.
fn on_a_line(text: &str) -> String {
    const MOST: usize = 100;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST - 1).chain(['…']).collect() }
}
