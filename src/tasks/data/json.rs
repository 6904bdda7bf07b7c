//! JSON lines, arrays of objects, and objects with an array of data.

use super::{Record, Source, line_ends, squad};
use crate::error::Result;
use crate::io::file::plain_json;
use serde_json::Value;

/// Whether a text begins like objects of JSON.
pub(super) fn begins(text: &str) -> bool {
    let mut marks = text.chars().filter(|c| !c.is_whitespace());
    matches!((marks.next(), marks.next()), (Some('{'), Some('"' | '}')) | (Some('['), Some('{' | ']')))
}

pub(super) fn read(source: &Source) -> Result<Vec<Record>> {
    let text = plain_json(&source.text);
    let mut records = Vec::new();
    each_value(source, &text, |line, value| {
        let data = value.get("data").and_then(Value::as_array);
        match data {
            Some(articles) if squad::is(articles) => squad::read(source, line, articles, &mut records),
            Some(entries) if entries.iter().all(Value::is_object) && !entries.is_empty() => {
                entries.iter().try_for_each(|entry| push(source, line, entry.clone(), &mut records))
            }
            _ => push(source, line, value, &mut records),
        }
    })?;
    Ok(records)
}

fn push(source: &Source, line: usize, value: Value, records: &mut Vec<Record>) -> Result<()> {
    match value {
        Value::Object(fields) => {
            records.push(source.record(line, fields));
            Ok(())
        }
        other => {
            let message = format!("{} stands where an object such as {{\"text\": \"...\"}} should", kind(&other));
            Err(source.error(line, message))
        }
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The elements of an array, or the values that stand one after the other, with their lines.
fn each_value(source: &Source, text: &str, mut each: impl FnMut(usize, Value) -> Result<()>) -> Result<()> {
    let (mut at, mut line) = (0, 1);
    let blanks = |at: &mut usize, line: &mut usize| {
        let rest = &text[*at..];
        let skipped = rest.len() - rest.trim_start().len();
        *line += line_ends(&rest[..skipped]);
        *at += skipped;
        rest[skipped..].chars().next()
    };
    let array = blanks(&mut at, &mut line) == Some('[');
    at += usize::from(array);
    let mut first = true;
    loop {
        match blanks(&mut at, &mut line) {
            None if array => return Err(source.error(line, "the file ends within its list")),
            None => return Ok(()),
            Some(']') if array => {
                at += 1;
                return match blanks(&mut at, &mut line) {
                    None => Ok(()),
                    Some(_) => Err(source.error(line, "there is more behind the end of the list")),
                };
            }
            Some(',') if array && !first => at += 1,
            Some(_) if array && !first => return Err(source.error(line, "a comma is missing in front of this entry")),
            Some(_) => {}
        }
        first = false;
        blanks(&mut at, &mut line);
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<Value>();
        match values.next() {
            Some(Ok(value)) => each(line, value)?,
            Some(Err(e)) => {
                let message = format!("not valid JSON: {e}, counted from here");
                return Err(source.error(line, message));
            }
            None => return Err(source.error(line, "the file ends behind a comma")),
        }
        let end = at + values.byte_offset();
        line += line_ends(&text[at..end]);
        at = end;
    }
}
