//! The device of a command, and its caches between commands.

use super::args::{Common, Tune};
use super::output::note;
use crate::error::Result;
use crate::gpu::{Gpu, GpuOptions, Tuning};
use crate::io::{load_pipelines, load_tuning, save_pipelines, save_tuning};
use std::path::PathBuf;

/// The environment variable for the cache folder; the default is `wgformer` in the user's cache folder.
const VARIABLE: &str = "WGFORMER_CACHE";

/// A device. Dropping it saves compiled pipelines and tuned variants.
pub(super) struct Device {
    pub(super) gpu: Gpu,
    folder: Option<PathBuf>,
}

impl Device {
    pub(super) fn open(options: &Common) -> Result<Self> {
        let gpu = Gpu::choose_with(
            options.adapter.as_deref(),
            &GpuOptions {
                class: options.class.map(Into::into),
                matrix_units: options.matrix_units,
                ..GpuOptions::default()
            },
        )?;
        if options.matrix_units && gpu.caps().matrix_units.is_none() {
            note(format_args!("{} has no matrix units that wgpu shows: products run without", gpu.info().name));
        }
        let folder = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let folder = folder.or_else(|| dirs::cache_dir().map(|cache| cache.join("wgformer")));
        if let Some(folder) = &folder {
            load_pipelines(folder, &gpu)?;
            // Without tuning the defaults run, whatever was tuned before: the same on every run.
            if options.tune != Tune::Off {
                load_tuning(folder, &gpu)?;
            }
        }
        gpu.tune(match options.tune {
            Tune::Off => Tuning::Off,
            Tune::Fast => Tuning::Fast,
            Tune::Full => Tuning::Full,
        });
        Ok(Self { gpu, folder })
    }

    /// Saves compiled pipelines and tuned variants. A failure only costs time, so it is a warning.
    pub(super) fn save_caches(&self) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = save_pipelines(folder, &self.gpu).and_then(|()| save_tuning(folder, &self.gpu)) {
            log::warn!("compiled pipelines and tuned variants are not saved for the next command: {error}");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.save_caches();
    }
}
