//! Caches of a device between processes: tuned variants and the driver's compiled pipelines, in separate files for each adapter, driver
//! and version of the engine.

use super::file::{Fingerprint, write_atomic};
use super::read_json;
use crate::error::{Error, Result};
use crate::gpu::{AdapterClass, Gpu, TunedVariants};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The adapter and driver that a cache is valid for. Another version of a driver counts as another adapter: its fastest kernel may be another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Scope {
    engine: String,
    backend: String,
    adapter: String,
    vendor: u32,
    device: u32,
    driver: String,
    driver_info: String,
    /// The class of the adapter, if it is not the detected one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class: Option<AdapterClass>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Content {
    scope: Scope,
    /// `choices` in the file.
    #[serde(rename = "choices")]
    variants: TunedVariants,
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

/// The file of a device's tuned variants in a folder.
///
/// # Errors
/// None with a working serialiser.
pub fn tuning_file(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<PathBuf> {
    Ok(folder.as_ref().join(format!("tuning-{}.json", Scope::of(gpu).name()?)))
}

/// The file of a device's compiled pipelines in a folder.
///
/// # Errors
/// As [`tuning_file`].
pub fn pipelines_file(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<PathBuf> {
    Ok(folder.as_ref().join(format!("pipelines-{}.bin", Scope::of(gpu).name()?)))
}

/// Loads a device's tuned variants from a folder, and returns their number. A file that cannot be read, is damaged or belongs to another
/// device is ignored with a warning in the log: tuning again only costs time.
///
/// # Errors
/// As [`tuning_file`].
pub fn load_tuning(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<usize> {
    let path = tuning_file(folder, gpu)?;
    if !path.exists() {
        return Ok(0);
    }
    match read(&path, gpu) {
        Ok(variants) => {
            let count = variants.len();
            gpu.use_variants(variants);
            Ok(count)
        }
        Err(error) => {
            log::warn!("the tuned variants are not used: {error}");
            Ok(0)
        }
    }
}

fn read(path: &Path, gpu: &Gpu) -> Result<TunedVariants> {
    let value = read_json(path)?;
    let content: Content = serde_json::from_value(value).map_err(|e| Error::format(path, e.to_string()))?;
    if content.scope != Scope::of(gpu) {
        return Err(Error::format(path, "the file was written for another adapter, driver or version"));
    }
    let mut variants = TunedVariants::default();
    content.variants.iter().for_each(|(problem, variant)| variants.insert(problem, renamed(variant)));
    Ok(variants)
}

/// The present name of a variant that was renamed since earlier versions wrote it.
fn renamed(variant: &str) -> &str {
    match variant {
        "Rows" => "PerThread",
        "Lines" => "Unrolled",
        other => other,
    }
}

/// Saves a device's tuned variants in a folder, which is created if it is missing. Nothing is written if there are none.
///
/// # Errors
/// [`Error::File`] if the file cannot be written.
pub fn save_tuning(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<()> {
    let variants = gpu.tuned_variants();
    if variants.is_empty() {
        return Ok(());
    }
    let folder = folder.as_ref();
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    let content = Content { scope: Scope::of(gpu), variants };
    let bytes = serde_json::to_vec_pretty(&content).map_err(|e| Error::input("tuned variants", e.to_string()))?;
    write_atomic(tuning_file(folder, gpu)?, &bytes)
}

/// The size of the fingerprint before a file's content.
const FINGERPRINT: usize = 16;

/// Enables the driver's pipeline cache with the pipelines that earlier processes saved in a folder; false if the device has no pipeline
/// caches. A damaged file is ignored with a warning in the log.
///
/// # Errors
/// [`Error::Validation`] if the driver refuses, [`Error::OutOfMemory`]; and as [`tuning_file`].
pub fn load_pipelines(folder: impl AsRef<Path>, gpu: &Gpu) -> Result<bool> {
    let path = pipelines_file(folder, gpu)?;
    let bytes = std::fs::read(&path).unwrap_or_default();
    let sound = bytes.split_at_checked(FINGERPRINT).filter(|(print, data)| Fingerprint::of(data).as_bytes() == *print);
    if sound.is_none() && !bytes.is_empty() {
        log::warn!("{} is damaged and ignored: kernels are compiled again", path.display());
    }
    gpu.cache_pipelines(sound.map(|(_, data)| data))
}

/// Saves the driver's pipeline cache ([`load_pipelines`]) in a folder, which is created if it is missing.
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
