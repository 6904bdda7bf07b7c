//! The record of a checkpoint, `checkpoint.json`: the size and fingerprint of every file, and a seal over all of it.

use super::file::{self, Fingerprint};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// Raised when a field changes its meaning.
const VERSION: u64 = 1;

/// The content of `checkpoint.json`: whole numbers and text only, which are read back exactly as they were written.
pub(super) struct Record {
    pub(super) step: u64,
    pub(super) sequence: u64,
    pub(super) engine: String,
    pub(super) files: BTreeMap<String, Value>,
}

/// The text of `checkpoint.json`: the seal is the fingerprint of all other fields.
pub(super) fn sealed(step: u64, sequence: u64, files: Map<String, Value>) -> Vec<u8> {
    let engine = concat!("wgformer ", env!("CARGO_PKG_VERSION"));
    let mut record = json!({"version": VERSION, "engine": engine, "sequence": sequence, "step": step, "files": files});
    record["seal"] = json!(Fingerprint::of(record.to_string().as_bytes()));
    super::folder::pretty(&record)
}

impl Record {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut record = file::read_json(path)?;
        let damaged = |what: &str| Error::format(path, format!("is torn or damaged: {what}"));
        let seal = record.as_object_mut().and_then(|r| r.remove("seal"));
        if seal.as_ref().and_then(Value::as_str) != Some(Fingerprint::of(record.to_string().as_bytes()).as_str()) {
            return Err(damaged("its seal does not fit"));
        }
        let number =
            |key: &str| record.get(key).and_then(Value::as_u64).ok_or_else(|| damaged(&format!("it has no {key}")));
        let (version, step, sequence) = (number("version")?, number("step")?, number("sequence")?);
        if version != VERSION {
            let message = format!("has version {version}, this program reads {VERSION}: use the program that wrote it");
            return Err(Error::format(path, message));
        }
        let engine = record.get("engine").and_then(Value::as_str).unwrap_or("unknown").to_owned();
        match record.get_mut("files").map(Value::take) {
            Some(Value::Object(files)) => Ok(Self { step, sequence, engine, files: files.into_iter().collect() }),
            _ => Err(damaged("it lists no files")),
        }
    }
}

/// Writes a file to disk and returns its size and fingerprint.
pub(super) fn write_file(path: &Path, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> io::Result<Value> {
    let mut fingerprint = Fingerprint::new();
    let mut length = 0u64;
    let mut file = File::create_new(path)?;
    file::write_synced(&mut file, |w| {
        fill(&mut FingerprintWriter { inner: w, fingerprint: &mut fingerprint, length: &mut length })
    })?;
    Ok(json!({"bytes": length, "fingerprint": fingerprint.finish()}))
}

/// The size and fingerprint of a file.
pub(super) fn describe(mut file: File) -> io::Result<Value> {
    let mut fingerprint = Fingerprint::new();
    let mut length = 0u64;
    let mut buffer = vec![0; 1 << 18];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(json!({"bytes": length, "fingerprint": fingerprint.finish()}));
        }
        length += count as u64;
        fingerprint.update(&buffer[..count]);
    }
}

/// A writer that counts and fingerprints the bytes it passes on.
struct FingerprintWriter<'a> {
    inner: &'a mut dyn Write,
    fingerprint: &'a mut Fingerprint,
    length: &'a mut u64,
}

impl Write for FingerprintWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.fingerprint.update(&bytes[..count]);
        *self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
