//! Folders with an adapter of a model, as PEFT writes them.

use super::file;
use super::safetensors::Tensors;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What the adapter is.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// Its weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

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
    /// Opens a folder, and says where its base model is.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] with the path of what is missing or damaged; also if the base is no folder or file here.
    pub(super) fn open(path: &Path) -> Result<(Self, PathBuf)> {
        let config_path = path.join(ADAPTER_CONFIG);
        let config = file::read_json_text(&config_path)?;
        let value: serde_json::Value =
            serde_json::from_str(&config).map_err(|e| Error::format(&config_path, format!("is not JSON: {e}")))?;
        let Some(name) = value.get("base_model_name_or_path").and_then(|name| name.as_str()) else {
            return Err(Error::format(
                config_path,
                "has no \"base_model_name_or_path\", the folder of the model it was made for",
            ));
        };
        let places = [path.join(name), PathBuf::from(name)];
        let Some(base) = places.into_iter().find(|place| place.is_dir() || place.is_file()) else {
            let message = format!(
                "is an adapter of the model {name:?}, which is no folder or file here: put its path into \"base_model_name_or_path\""
            );
            return Err(Error::format(config_path, message));
        };
        let weights = path.join(ADAPTER_WEIGHTS);
        if !weights.exists() {
            let message = format!(
                "has no {ADAPTER_WEIGHTS}: save the adapter again with Python (peft), which writes it unless safe_serialization is False"
            );
            return Err(Error::format(path, message));
        }
        Ok((Self { path: path.to_owned(), config, tensors: Tensors::open(&weights)? }, base))
    }
}
