//! GGUF files: a Llama model, weights, configuration and tokenizer in one file.
//!
//! The file is mapped. Weights in F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are read, quantised ones block by block as they are.

mod llama;
mod metadata;
mod reader;
mod vocabulary;

use super::config::Config;
use super::folder::ModelFolder;
#[cfg(feature = "files")]
use super::safetensors;
use super::safetensors::{OneFile, Tensors};
use crate::error::{Error, Result};
use metadata::Metadata;
use reader::Header;
use std::path::Path;

/// Opens a file.
///
/// # Errors
/// [`Error::File`] if it cannot be read; [`Error::Format`] that says what is damaged or not supported, and what to do.
#[cfg(feature = "files")]
pub fn open(path: impl AsRef<Path>) -> Result<ModelFolder> {
    let path = path.as_ref();
    from_content(path, safetensors::map(path)?)
}

/// A file that is in memory; `label` stands for its path in messages.
///
/// # Errors
/// [`Error::Format`] that says what is damaged or not supported, and what to do.
pub fn from_bytes(label: impl AsRef<Path>, bytes: Vec<u8>) -> Result<ModelFolder> {
    from_content(label.as_ref(), OneFile::Owned(bytes))
}

fn from_content(path: &Path, content: OneFile) -> Result<ModelFolder> {
    let header = Header::read(content.bytes()).map_err(|message| Error::format(path, message))?;
    let metadata = Metadata { path, values: header.metadata.clone() };
    let config = Config::new(path, llama::config(&metadata, &header, content.bytes())?)?;
    let tokenizer = vocabulary::tokenizer(&metadata)?;
    let found = llama::tensors(&metadata, &header.tensors)?;
    drop((metadata, header));
    let tensors = Tensors::found(path, content, found);
    Ok(ModelFolder { path: path.to_owned(), config, generation: None, tensors, tokenizer })
}
