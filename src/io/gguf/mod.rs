//! GGUF files: a Llama model, weights, configuration and tokenizer in one file.
//!
//! The file is mapped. Weights in F32, F16, BF16, Q8_0, Q6_K, Q4_0 and Q4_1 are read, quantised ones block by block as they are.

mod llama;
mod metadata;
mod parts;
mod reader;
mod sampling;
mod vocabulary;

use super::config::Config;
use super::folder::ModelFolder;
#[cfg(feature = "files")]
use super::safetensors;
use super::safetensors::{OneFile, Tensors};
use crate::error::{Error, Result};
use metadata::Metadata;
use reader::Header;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Opens a file; or all parts of a model that was split, by its first.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Format`] if it is damaged or not supported.
#[cfg(feature = "files")]
pub fn open(path: impl AsRef<Path>) -> Result<ModelFolder> {
    let path = path.as_ref();
    let first = safetensors::map(path)?;
    let parts = {
        let header = Header::read(first.bytes()).map_err(|message| Error::format(path, message))?;
        parts::others(&Metadata { path, values: header.metadata })?
    };
    let rest = parts.iter().map(|part| safetensors::map(part));
    let contents = std::iter::once(Ok(first)).chain(rest).collect::<Result<_>>()?;
    from_contents(path, &parts, contents)
}

/// A file that is in memory; `label` stands for its path in messages.
///
/// # Errors
/// [`Error::Format`] if it is damaged or not supported.
pub fn from_bytes(label: impl AsRef<Path>, bytes: Vec<u8>) -> Result<ModelFolder> {
    from_contents(label.as_ref(), &[], vec![OneFile::Owned(bytes)])
}

/// A model of one file or several; `parts` are the names of the others.
fn from_contents(path: &Path, parts: &[PathBuf], contents: Vec<OneFile>) -> Result<ModelFolder> {
    let header = Header::read(contents[0].bytes()).map_err(|message| Error::format(path, message))?;
    let metadata = Metadata { path, values: header.metadata.clone() };
    llama::check_architecture(&metadata)?;
    if parts.is_empty() {
        parts::check_whole(&metadata)?;
    }
    let mut tensors = BTreeMap::new();
    let paths = std::iter::once(path).chain(parts.iter().map(PathBuf::as_path));
    for (file, (path, content)) in paths.zip(&contents).enumerate() {
        let read = || Header::read(content.bytes())?.tensors(file);
        for (name, info) in read().map_err(|message| Error::format(path, message))? {
            if tensors.insert(name, info).is_some() {
                return Err(Error::format(path, format!("holds tensor {name:?}, which another part holds, too")));
            }
        }
    }
    let model = llama::Model { metadata: &metadata, tensors: &tensors, contents: &contents };
    let config = Config::new(path, model.config()?)?;
    let generation = sampling::generation(&metadata)?.map(|value| Config::new(path, value)).transpose()?;
    let found = model.found()?;
    let (tokenizer, no_tokenizer) = match vocabulary::tokenizer(&metadata) {
        Ok(tokenizer) => (tokenizer, None),
        // Not every use of a model needs it.
        Err(Error::Format { message, .. }) => (None, Some(message)),
        Err(other) => return Err(other),
    };
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
