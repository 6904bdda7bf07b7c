//! Python's conventions for values: how it prints them, splits lines, and writes JSON.

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write;

/// The deepest nesting of values that is written.
const NESTED: usize = 100;

type Result<T> = std::result::Result<T, Error>;

/// The keys of a mapping and their values, in its order.
pub(super) fn pairs(map: &Value) -> Result<Vec<(Value, Value)>> {
    map.try_iter()?.map(|key| map.get_item(&key).map(|value| (key, value))).collect()
}

/// Lines as Python splits them, without their ends.
pub(super) fn split_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' | '\n' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                if c == '\r' {
                    characters.next_if_eq(&'\n');
                }
                lines.push(std::mem::take(&mut line));
            }
            _ => line.push(c),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn too_deep() -> Error {
    Error::new(ErrorKind::InvalidOperation, "values are nested too deeply")
}

/// A value as Python prints it; within lists and mappings texts are quoted.
pub(super) fn write_python(out: &mut String, value: &Value, quoted: bool, depth: usize) -> Result<()> {
    if depth > NESTED {
        return Err(too_deep());
    }
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String if quoted => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            out.push(quote);
            for c in text.chars() {
                match c {
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    '\t' => out.push_str("\\t"),
                    '\\' => out.push_str("\\\\"),
                    c if c == quote => {
                        out.push('\\');
                        out.push(c);
                    }
                    c => out.push(c),
                }
            }
            out.push(quote);
        }
        ValueKind::Seq => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_python(out, &item, true, depth + 1)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (index, (key, item)) in pairs(value)?.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_python(out, key, true, depth + 1)?;
                out.push_str(": ");
                write_python(out, item, true, depth + 1)?;
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

/// `tojson` with `indent`, `separators`, `sort_keys` and `ensure_ascii`, as Python's `json.dumps`.
pub(super) fn to_json(value: &Value, more: Rest<Value>, options: Kwargs) -> Result<Value> {
    let of = |name: &str| -> Result<Option<Value>> {
        Ok(options.get::<Option<Value>>(name)?.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = of("indent")?.map(|indent| match indent.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(usize::try_from(indent.as_i64().unwrap_or(0)).unwrap_or(0).min(64)),
    });
    let separators = match of("separators")? {
        Some(two) => Some((two.get_item_by_index(0)?.to_string(), two.get_item_by_index(1)?.to_string())),
        None => None,
    };
    let usual = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or((usual.into(), ": ".into()));
    let sort = of("sort_keys")?.is_some_and(|flag| flag.is_true());
    let ascii = of("ensure_ascii")?.or_else(|| more.first().cloned()).is_some_and(|flag| flag.is_true());
    options.assert_all_used()?;
    let mut out = String::new();
    Dump { indent, item, key, sort, ascii }.write(&mut out, value, 0)?;
    Ok(Value::from_safe_string(out))
}

/// How JSON is written.
struct Dump {
    indent: Option<String>,
    item: String,
    key: String,
    sort: bool,
    ascii: bool,
}

impl Dump {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<()> {
        if depth > NESTED {
            return Err(too_deep());
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                let _ = write!(out, "{value}");
            }
            ValueKind::String => self.text(out, value.as_str().unwrap_or_default()),
            ValueKind::Map => {
                let mut pairs = pairs(value)?;
                if self.sort {
                    pairs.sort_by(|a, b| a.0.cmp(&b.0));
                }
                let write = |out: &mut String, (key, value): &(Value, Value)| {
                    self.text(out, &key.to_string());
                    out.push_str(&self.key);
                    self.write(out, value, depth + 1)
                };
                self.all(out, ('{', '}'), depth, &pairs, write)?;
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.all(out, ('[', ']'), depth, &items, |out, item| self.write(out, item, depth + 1))?;
            }
            kind => {
                let message = format!("tojson: a value of kind {kind} cannot be written as JSON");
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
        Ok(())
    }

    fn all<T>(
        &self,
        out: &mut String,
        (open, close): (char, char),
        depth: usize,
        items: &[T],
        mut write: impl FnMut(&mut String, &T) -> Result<()>,
    ) -> Result<()> {
        out.push(open);
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(indent.as_str(), depth));
            }
        };
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { &self.item });
            line(out, depth + 1);
            write(out, item)?;
        }
        if !items.is_empty() {
            line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}
