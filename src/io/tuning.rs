//! The tuner's choices on disk: one file for each adapter, driver and version of the engine.

use super::file::{Fingerprint, write_atomic};
use super::read_json;
use crate::error::{Error, Result};
use crate::gpu::{Choices, Gpu};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What choices hold for. Another version of a driver is another adapter: its fastest kernel may be the other one's slowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Scope {
    engine: String,
    backend: String,
    adapter: String,
    vendor: u32,
    device: u32,
    driver: String,
    driver_info: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    scope: Scope,
    choices: Choices,
}

impl Scope {
    fn of(gpu: &Gpu) -> Self {
        let info = gpu.info();
        Self {
            engine: env!("CARGO_PKG_VERSION").into(),
            backend: info.backend.to_string(),
            adapter: info.name.clone(),
            vendor: info.vendor,
            device: info.device,
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
        }
    }
}

/// The file in which a folder keeps the choices for a device.
///
/// # Errors
/// None that a working serialiser gives.
pub fn tuning_file(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<PathBuf> {
    let scope = serde_json::to_vec(&Scope::of(gpu)).map_err(|e| Error::input("adapter", e.to_string()))?;
    Ok(folder.as_ref().join(format!("tuning-{}.json", Fingerprint::of(&scope))))
}

/// Hands the choices that a folder keeps for a device to it; says how many. A file that cannot be read, is damaged or of
/// another device is left alone, with a warning in the log: tuning only costs time.
///
/// # Errors
/// As [`tuning_file`].
pub fn load_tuning(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<usize> {
    let path = tuning_file(folder, gpu)?;
    if !path.exists() {
        return Ok(0);
    }
    match read(&path, gpu) {
        Ok(choices) => {
            let count = choices.len();
            gpu.choose_variants(choices);
            Ok(count)
        }
        Err(error) => {
            log::warn!("the tuner's choices are not used: {error}");
            Ok(0)
        }
    }
}

fn read(path: &Path, gpu: &Gpu) -> Result<Choices> {
    let value = read_json(path)?;
    let content: Content = serde_json::from_value(value).map_err(|e| Error::format(path, e.to_string()))?;
    if content.scope != Scope::of(gpu) {
        return Err(Error::format(path, "it was written for another adapter, driver or version"));
    }
    Ok(content.choices)
}

/// Keeps a device's choices in a folder, which is made if it is not there. Nothing is written where nothing is chosen.
///
/// # Errors
/// [`Error::File`] if the file cannot be written.
pub fn save_tuning(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<()> {
    let choices = gpu.choices();
    if choices.is_empty() {
        return Ok(());
    }
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let content = Content { scope: Scope::of(gpu), choices };
    let bytes = serde_json::to_vec_pretty(&content).map_err(|e| Error::input("choices", e.to_string()))?;
    write_atomic(tuning_file(folder, gpu)?, &bytes)
}
