//! GGUF files: a model's weights, configuration and tokenizer in one file.
//!
//! The file is mapped. Quantised weights ([`crate::quantised`]) are read block by block as they are.

mod architectures;
mod metadata;
mod model;
mod parts;
mod reader;
mod sampling;
mod source;
mod vocabulary;
#[cfg(feature = "files")]
mod write;

#[cfg(feature = "files")]
pub use write::{GgufContents, GgufWritten};

use super::config::Config;
use super::folder::{ModelFolder, if_needed};
use super::ranges::part;
#[cfg(feature = "files")]
use super::safetensors;
use super::safetensors::{HEADER_LIMIT, OneFile, Tensors};
use crate::error::{Error, Result};
use metadata::Metadata;
use model::Model;
use reader::{Header, MAGIC};
use source::Source;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Bytes that are read of a file whose header's length is not known.
const FIRST: u64 = 1 << 20;

/// The table of tokens.
const TABLE: &str = "token_embd.weight";

/// Parts of a file that are not read. They are errors, unless a model is only looked at.
#[derive(Debug, Default)]
struct Faults {
    looked_at: bool,
}

impl Faults {
    /// # Errors
    /// The error, unless the model is only looked at.
    fn note(&mut self, error: Error) -> Result<()> {
        if !self.looked_at {
            return Err(error);
        }
        log::warn!("{error}");
        Ok(())
    }
}

/// Opens a file; or all parts of a model that was split, by its first.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Format`] if it is damaged or not supported.
#[cfg(feature = "files")]
pub fn open(path: impl AsRef<Path>) -> Result<ModelFolder> {
    opened(path.as_ref(), &mut Faults::default())
}

/// As [`open`], for a look at the model: keys that are not known are noted in the log.
///
/// # Errors
/// As [`open`].
#[cfg(feature = "files")]
pub fn look_at(path: impl AsRef<Path>) -> Result<ModelFolder> {
    opened(path.as_ref(), &mut Faults { looked_at: true })
}

#[cfg(feature = "files")]
fn opened(path: &Path, faults: &mut Faults) -> Result<ModelFolder> {
    let first = safetensors::map(path)?;
    let parts = {
        let header = Header::read(first.bytes()).map_err(|message| Error::format(path, message))?;
        parts::others(&Metadata { path, values: header.metadata })?
    };
    let rest = parts.iter().map(|part| safetensors::map(part));
    let contents = std::iter::once(Ok(first)).chain(rest).collect::<Result<_>>()?;
    from_contents(path, &parts, contents, faults)
}

/// A file that is in memory; `label` stands for its path in messages.
///
/// # Errors
/// [`Error::Format`] if it is damaged or not supported.
pub fn from_bytes(label: impl AsRef<Path>, bytes: Vec<u8>) -> Result<ModelFolder> {
    from_contents(label.as_ref(), &[], vec![OneFile::Owned(bytes)], &mut Faults::default())
}

/// A file of `length` bytes of which only header, metadata and what they refer to are read, by `read`;
/// [`crate::models::load_model_async`] reads the weights one by one.
///
/// # Errors
/// [`Error::Format`] if it is damaged or not supported; those of `read`.
pub async fn open_async(
    label: impl AsRef<Path>,
    length: u64,
    read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
) -> Result<ModelFolder> {
    let label = label.as_ref();
    let whole = usize::try_from(length).map_err(|_| Error::format(label, "is too long for this machine"))?;
    let most = length.min(HEADER_LIMIT as u64);
    let mut head = Vec::new();
    // Nothing says how long the header is.
    let ranges = loop {
        let size = if head.is_empty() { FIRST } else { 2 * head.len() as u64 }.min(most);
        head.extend(part(label, head.len() as u64..size, read).await?);
        match aside(&head, whole) {
            Ok(ranges) => break ranges,
            Err(message) if size == most || !head.starts_with(MAGIC) => return Err(Error::format(label, message)),
            Err(_) => (),
        }
    };
    let mut parts = BTreeMap::new();
    for range in ranges.into_iter().filter(|range| range.end > head.len()) {
        parts.insert(range.start, part(label, range.start as u64..range.end as u64, read).await?);
    }
    parts.insert(0, head);
    from_contents(label, &[], vec![OneFile::Parts { length: whole, read: parts }], &mut Faults::default())
}

/// Where the tensors lie that are read with the metadata.
fn aside(head: &[u8], length: usize) -> std::result::Result<Vec<Range<usize>>, String> {
    let tensors = Header::read(head)?.tensors(0, length)?;
    Ok(tensors
        .into_iter()
        .filter(|(name, _)| architectures::POSITIONS.contains(name))
        .map(|(_, info)| info.range)
        .collect())
}

/// A model of one file or several; `parts` are the names of the others.
fn from_contents(path: &Path, parts: &[PathBuf], contents: Vec<OneFile>, faults: &mut Faults) -> Result<ModelFolder> {
    let header = Header::read(contents[0].bytes()).map_err(|message| Error::format(path, message))?;
    let metadata = Metadata { path, values: header.metadata.clone() };
    let architecture = model::architecture(&metadata)?;
    if parts.is_empty() {
        parts::check_whole(&metadata)?;
    }
    let mut tensors = BTreeMap::new();
    let paths = std::iter::once(path).chain(parts.iter().map(PathBuf::as_path));
    for (file, (path, content)) in paths.zip(&contents).enumerate() {
        let read = || Header::read(content.bytes())?.tensors(file, content.length());
        for (name, info) in read().map_err(|message| Error::format(path, message))? {
            if tensors.insert(name, info).is_some() {
                return Err(Error::format(path, format!("holds tensor {name:?}, which another part holds, too")));
            }
        }
    }
    let source = Source {
        metadata: &metadata,
        tensors: &tensors,
        contents: &contents,
        architecture: architecture.name,
        read: RefCell::default(),
    };
    let model = Model { architecture: architecture.by_tensors(&source), source: &source };
    let config = Config::new(path, model.config(faults)?)?;
    let generation = sampling::generation(&metadata)?.map(|value| Config::new(path, value)).transpose()?;
    let found = model.found()?;
    let (tokenizer, no_tokenizer) = if_needed(vocabulary::tokenizer(&metadata))?;
    drop(source);
    drop((tensors, metadata, header));
    let tensors = Tensors::found(path, contents, found);
    Ok(ModelFolder {
        path: path.to_owned(),
        config,
        generation,
        tensors,
        tokenizer,
        #[cfg(feature = "files")]
        adapter: None,
        no_tokenizer,
    })
}
