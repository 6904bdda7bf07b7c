//! Lines of text, in one file or in two.

use super::{Record, Source};
use crate::error::{Error, Result};
use serde_json::Value;
use std::path::Path;

pub(super) fn read(source: &Source) -> Result<Vec<Record>> {
    let lines = || source.lines().filter(|(_, line)| !line.trim().is_empty());
    if !lines().next().is_some_and(|(_, line)| line.contains('\t')) {
        return Ok(lines().map(|(at, line)| source.record(at, [("text", line.into())])).collect());
    }
    let pair = |(at, line): (usize, &str)| match line.split_once('\t') {
        Some((left, right)) if !right.contains('\t') => Ok(record(source, at, left, right)),
        _ => {
            let message = "the first line has a tab, so each should have one, between source and target; \
                           a file of more columns is read as tsv";
            Err(source.error(at, message))
        }
    };
    lines().map(pair).collect()
}

fn record(source: &Source, line: usize, left: &str, right: &str) -> Record {
    source.record(line, [("source", Value::from(left)), ("target", Value::from(right))])
}

/// The records `source`, `target` of two files whose lines belong together. Pairs of blank lines are left out.
///
/// # Errors
/// Those of [`read_records`](super::read_records); [`Error::Format`] if the files have unequal numbers of lines.
pub fn read_parallel(sources: &Path, targets: &Path) -> Result<Vec<Record>> {
    let (sources, targets) = (Source::read(sources)?, Source::read(targets)?);
    let [left, right] = [&sources, &targets].map(|file| file.lines().count());
    if left != right {
        let message = format!(
            "has {right} lines, but {} has {left}: line by line they should be the same texts",
            sources.path.display()
        );
        return Err(Error::format(&targets.path, message));
    }
    let pairs = sources.lines().zip(targets.lines());
    let records: Vec<Record> = pairs
        .filter(|((_, left), (_, right))| !(left.trim().is_empty() && right.trim().is_empty()))
        .map(|((at, left), (_, right))| record(&sources, at, left, right))
        .collect();
    match records.is_empty() {
        true => Err(Error::format(&sources.path, "holds no examples")),
        false => Ok(records),
    }
}
