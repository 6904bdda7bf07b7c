//! CSV and TSV.

use super::{Record, Source, line_ends};
use crate::error::Result;
use serde_json::Value;

/// What parts the cells of a file of comma-separated values: the first of comma, semicolon and tab that its first line has.
pub(super) fn delimiter(text: &str) -> u8 {
    let head = text.lines().next().unwrap_or_default().as_bytes();
    *[b',', b';', b'\t'].iter().find(|delimiter| head.contains(delimiter)).unwrap_or(&b',')
}

pub(super) fn read(source: &Source, delimiter: u8, no_header: bool) -> Result<Vec<Record>> {
    let text = source.text.as_str();
    let irregular = irregular_quote(text, delimiter);
    if let (Some(line), false) = (irregular, delimiter == b'\t') {
        let message =
            "a cell that begins with a quotation mark must end with one, and have those within it twice (\"\")";
        return Err(source.error(line, message));
    }
    let mut reader = ::csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(irregular.is_none())
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let (mut names, mut records): (Option<Vec<String>>, _) = (None, Vec::new());
    let (mut at, mut line) = (0, 1);
    let mut row = ::csv::StringRecord::new();
    loop {
        // The reader skips blank lines, and gives the place in front of them.
        let next = usize::try_from(reader.position().byte()).unwrap_or(text.len());
        let rest = text.get(next..).unwrap_or_default();
        let next = next + rest.len() - rest.trim_start_matches('\n').len();
        line += text.get(at..next).map_or(0, line_ends);
        at = next;
        if !reader.read_record(&mut row).map_err(|e| source.error(line, e))? {
            return Ok(records);
        }
        let names = match &names {
            Some(names) => names,
            None if no_header => names.insert((1..=row.len()).map(|i| i.to_string()).collect()),
            None => {
                names = Some(header(source, line, &row)?);
                continue;
            }
        };
        if row.len() != names.len() {
            let message = format!("{} cells, but the first row has {}", row.len(), names.len());
            return Err(source.error(line, message));
        }
        records.push(source.record(line, names.iter().cloned().zip(row.iter().map(Value::from))));
    }
}

/// The names in a first row. A column without one has its number.
fn header(source: &Source, line: usize, row: &::csv::StringRecord) -> Result<Vec<String>> {
    let name = |(i, cell): (usize, &str)| match cell.trim() {
        "" => i.to_string(),
        name => name.to_owned(),
    };
    let names: Vec<String> = (1..).zip(row).map(name).collect();
    let twice = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name));
    match twice {
        Some((_, name)) => {
            let message = format!("two columns have the name {name:?}; if the first row is no header, say so");
            Err(source.error(line, message))
        }
        None => Ok(names),
    }
}

/// The line of the first quotation mark that is not in its place: a cell that begins with one ends with one, and has those within it twice.
fn irregular_quote(text: &str, delimiter: u8) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut line, mut begins) = (0, 1, true);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte != b'"' || !begins {
            begins = *byte == delimiter || *byte == b'\n';
            line += usize::from(*byte == b'\n');
            continue;
        }
        let opened = line;
        loop {
            match (bytes.get(at), bytes.get(at + 1)) {
                (None, _) => return Some(opened),
                (Some(b'"'), Some(b'"')) => at += 1,
                (Some(b'"'), next) => match next.is_none_or(|next| *next == delimiter || *next == b'\n') {
                    true => break,
                    false => return Some(line),
                },
                (Some(byte), _) => line += usize::from(*byte == b'\n'),
            }
            at += 1;
        }
        (at, begins) = (at + 1, false);
    }
    None
}
