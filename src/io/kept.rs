//! What is kept of a device between processes: the tuner's choices and the driver's compiled pipelines, in files of their
//! own for each adapter, driver and version of the engine.

use super::file::{Fingerprint, write_atomic};
use super::read_json;
use crate::error::{Error, Result};
use crate::gpu::{AdapterClass, Choices, Gpu};
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
    /// What the adapter is taken for, if not for what it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<AdapterClass>,
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
            class: Some(gpu.caps().class).filter(|class| *class != AdapterClass::of(info)),
        }
    }
}

impl Scope {
    /// A short name for it.
    fn name(&self) -> Result<String> {
        let scope = serde_json::to_vec(self).map_err(|e| Error::input("adapter", e.to_string()))?;
        Ok(Fingerprint::of(&scope))
    }
}

/// The file in which a folder keeps the choices for a device.
///
/// # Errors
/// None that a working serialiser gives.
pub fn tuning_file(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<PathBuf> {
    Ok(folder.as_ref().join(format!("tuning-{}.json", Scope::of(gpu).name()?)))
}

/// The file in which a folder keeps a device's compiled pipelines.
///
/// # Errors
/// As [`tuning_file`].
pub fn pipelines_file(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<PathBuf> {
    Ok(folder.as_ref().join(format!("pipelines-{}.bin", Scope::of(gpu).name()?)))
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

/// The bytes of a fingerprint in front of a file's content.
const FINGERPRINT: usize = 16;

/// Has the driver keep what it compiles, beginning with what a folder kept from earlier processes; false if the device has
/// no such caches. A damaged file is left alone, with a warning in the log.
///
/// # Errors
/// [`Error::Validation`] if the driver refuses, [`Error::OutOfMemory`]; and as [`tuning_file`].
pub fn load_pipelines(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<bool> {
    let path = pipelines_file(folder, gpu)?;
    let bytes = std::fs::read(&path).unwrap_or_default();
    let sound = bytes.split_at_checked(FINGERPRINT).filter(|(print, data)| Fingerprint::of(data).as_bytes() == *print);
    if sound.is_none() && !bytes.is_empty() {
        log::warn!("{} is damaged and not used: kernels are compiled again", path.display());
    }
    gpu.cache_pipelines(sound.map(|(_, data)| data))
}

/// Keeps what the driver has compiled since [`load_pipelines`], and before, in a folder, which is made if it is not there.
///
/// # Errors
/// [`Error::File`] if the file cannot be written.
pub fn save_pipelines(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<()> {
    let Some(data) = gpu.pipeline_data().filter(|data| !data.is_empty()) else { return Ok(()) };
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let bytes = [Fingerprint::of(&data).as_bytes(), &data].concat();
    write_atomic(pipelines_file(folder, gpu)?, &bytes)
}
