//! Folders with an adapter of a model, as PEFT writes them.

use super::file;
use super::safetensors::Tensors;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What the adapter is.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Its weights.
pub(crate) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter's folder that was opened.
#[derive(Debug)]
pub struct AdapterFolder {
    /// The folder.
    pub path: PathBuf,
    /// The text of `adapter_config.json`. The order of its patterns counts, so it is kept as text.
    pub config: String,
    /// The weights.
    pub tensors: Tensors,
}

impl AdapterFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] with the path of what is missing or damaged.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let config = file::read_json_text(&path.join(ADAPTER_CONFIG))?;
        let weights = path.join(ADAPTER_WEIGHTS);
        if !weights.exists() {
            let message = format!(
                "has no {ADAPTER_WEIGHTS}: save the adapter again with Python (peft), which writes it unless safe_serialization is False"
            );
            return Err(Error::format(path, message));
        }
        Ok(Self { tensors: Tensors::open(&weights)?, path, config })
    }

    /// The folder or file of the base model that an adapter's folder names, by a path from there or from the current folder.
    ///
    /// # Errors
    /// [`Error::Format`] if it names none, or none that is here.
    pub(super) fn base_of(path: &Path) -> Result<PathBuf> {
        let config = path.join(ADAPTER_CONFIG);
        let value = file::read_json(&config)?;
        let name = value.get("base_model_name_or_path").and_then(|name| name.as_str()).unwrap_or_default();
        let places = [path.join(name), PathBuf::from(name)];
        let here = |place: &PathBuf| !name.is_empty() && (place.is_dir() || place.is_file());
        places.into_iter().find(here).ok_or_else(|| {
            let message = format!(
                "this is a LoRA adapter, not a model, and its base model, {name:?} by \"base_model_name_or_path\", is no folder or file \
                 here: put its path there, or give its base model as the model and this folder with --lora"
            );
            Error::format(config, message)
        })
    }
}
