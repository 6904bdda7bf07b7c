//! The device of a command, and what is kept of it between commands.

use super::args::{Common, Tune};
use crate::error::Result;
use crate::gpu::{Gpu, Tuning};
use crate::io::{load_tuning, save_tuning};
use std::path::PathBuf;

/// Names the folder for what is kept; the default is `wgformer` in the user's folder for caches.
const VARIABLE: &str = "WGFORMER_CACHE";

/// A device. When it goes, the tuner's choices are kept.
pub(super) struct Device {
    pub(super) gpu: Gpu,
    folder: Option<PathBuf>,
}

impl Device {
    pub(super) fn open(options: &Common) -> Result<Self> {
        let gpu = Gpu::choose(options.adapter.as_deref())?;
        let tuning = match options.tune {
            Tune::Off => return Ok(Self { gpu, folder: None }),
            Tune::Fast => Tuning::Fast,
            Tune::Full => Tuning::Full,
        };
        let folder = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let folder = folder.or_else(|| dirs::cache_dir().map(|cache| cache.join("wgformer")));
        if let Some(folder) = &folder {
            load_tuning(folder, &gpu)?;
        }
        gpu.tune(tuning);
        Ok(Self { gpu, folder })
    }

    /// Keeps what the tuner has chosen so far. That it cannot be kept costs only time, and is a warning.
    pub(super) fn keep(&self) {
        let kept = self.folder.as_ref().map_or(Ok(()), |folder| save_tuning(folder, &self.gpu));
        if let Err(error) = kept {
            log::warn!("the tuner's choices are not kept: {error}");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.keep();
    }
}
