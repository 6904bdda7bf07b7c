//! Checkpoints of a training run: a kill at any moment leaves one that can be resumed from.
//!
//! ```text
//! run/step-000200/model.safetensors       the weights, under the model's names
//!                 optimizer.safetensors   moments and other state of the optimiser
//!                 config.json, …          small files of the caller: with them the folder is a model folder, too
//!                 state.json              the caller's state
//!                 checkpoint.json         size and fingerprint of all the files above
//! run/latest                              the name of the newest checkpoint, for people and scripts
//! ```
//!
//! A checkpoint is written under a temporary name, synced, and renamed. Only then are older ones removed. A folder whose files
//! do not match its `checkpoint.json` is torn or damaged; resuming skips it, says so, and takes the next older one.

use super::checkpoint_record::{Record, describe, sealed, write_file};
use super::file;
use super::safetensors::{Layout, NamedTensor, Tensors};
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const MODEL: &str = super::safetensors::SINGLE;
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const RECORD: &str = "checkpoint.json";
const LATEST: &str = "latest";
const LOCK: &str = ".lock";
const PREFIX: &str = "step-";
const TEMPORARY: &str = ".tmp";

/// The content of a checkpoint to save.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint<'a> {
    /// Training steps done.
    pub step: u64,
    /// The weights.
    pub model: &'a [NamedTensor<'a>],
    /// The state of the optimiser.
    pub optimizer: &'a [NamedTensor<'a>],
    /// Schedule, position in the data, random state, history, configuration: any JSON.
    pub state: &'a Value,
    /// Other small files by name, such as `config.json` and `tokenizer.json`.
    pub files: &'a [(String, Vec<u8>)],
}

/// A checkpoint that was loaded.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Training steps done.
    pub step: u64,
    /// The weights.
    pub model: Tensors,
    /// The state of the optimiser.
    pub optimizer: Tensors,
    /// The caller's JSON.
    pub state: Value,
    /// The engine's version that wrote it.
    pub engine: String,
    /// Newer checkpoints that could not be used, and why.
    pub skipped: Vec<String>,
}

/// The checkpoints of one run, in one folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// The stages of a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    FolderMade,
    ModelWritten,
    OptimizerWritten,
    FilesWritten,
    RecordWritten,
    Renamed,
    Pointed,
    Pruned,
}

impl Checkpoints {
    /// The checkpoints in a folder, of which the newest `keep` stay (at least one). Does not touch the disk.
    pub fn new(folder: impl Into<PathBuf>, keep: usize) -> Self {
        Self { folder: folder.into(), keep: keep.max(1) }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the folder, and tests that it is writable.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot.
    pub fn make_folder(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .and_then(|()| tempfile::tempfile_in(&self.folder).map(drop))
            .map_err(|e| Error::file(&self.folder, file::explain(e)))
    }

    /// Locks the existing folder against other training processes until the file is dropped.
    ///
    /// # Errors
    /// [`Error::Format`] if another one does so already; [`Error::File`] if the folder cannot be written.
    pub fn lock(&self) -> Result<File> {
        let path = self.folder.join(LOCK);
        let file = File::create(&path).map_err(|e| Error::file(&path, file::explain(e)))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = "another process trains here: wait for it, or choose another folder (--out)";
                Err(Error::format(&self.folder, message))
            }
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) => {
                log::warn!("{} cannot be locked, so two runs could write to it: {error}", path.display());
                Ok(file)
            }
            Ok(()) => Ok(file),
        }
    }

    /// Saves a checkpoint and removes those that are too old. Returns its folder.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be written, [`Error::Input`] if a tensor or name is not usable. Older checkpoints
    /// are then untouched, and what was written is removed.
    pub fn save(&self, checkpoint: &Checkpoint<'_>) -> Result<PathBuf> {
        let result = self.save_in_stages(checkpoint, &mut |_| Ok(()));
        if result.is_err() {
            // The first error is reported; files that cannot be removed now are removed by the next save.
            let _ = self.remove_temporary();
        }
        result
    }

    /// Saves; calls `after` at every stage, so that tests can stop there.
    fn save_in_stages(&self, c: &Checkpoint<'_>, after: &mut dyn FnMut(Stage) -> Result<()>) -> Result<PathBuf> {
        let (model, optimizer) = (Layout::new(c.model)?, Layout::new(c.optimizer)?);
        fs::create_dir_all(&self.folder).map_err(|e| Error::file(&self.folder, file::explain(e)))?;
        self.remove_temporary()?;
        let older = self.list()?;
        let name = self.free_name(c.step);
        let (temporary, path) = (self.folder.join(format!("{name}{TEMPORARY}")), self.folder.join(&name));
        fs::create_dir(&temporary).map_err(|e| Error::file(&temporary, file::explain(e)))?;
        after(Stage::FolderMade)?;
        let mut files = Map::new();
        let mut write = |name: &str, fill: &dyn Fn(&mut dyn Write) -> io::Result<()>| -> Result<()> {
            let path = temporary.join(name);
            let entry = write_file(&path, fill).map_err(|e| file::failed(&path, e))?;
            files.insert(name.to_owned(), entry);
            Ok(())
        };
        write(MODEL, &|w| model.write_to(w))?;
        after(Stage::ModelWritten)?;
        write(OPTIMIZER, &|w| optimizer.write_to(w))?;
        after(Stage::OptimizerWritten)?;
        write(STATE, &|w| w.write_all(&super::folder::pretty(c.state)))?;
        for (name, bytes) in c.files {
            if [MODEL, OPTIMIZER, STATE, RECORD].contains(&name.as_str()) || file::plain_name(&temporary, name).is_err()
            {
                return Err(Error::input(name, "cannot be the name of a file in a checkpoint"));
            }
            write(name, &|w| w.write_all(bytes))?;
        }
        after(Stage::FilesWritten)?;
        let sequence = 1 + older.iter().filter_map(|o| o.sequence).max().unwrap_or(0);
        file::write_atomic(temporary.join(RECORD), &sealed(c.step, sequence, files))?;
        after(Stage::RecordWritten)?;
        let rename = || {
            file::sync_folder(&temporary)?;
            fs::rename(&temporary, &path)?;
            file::sync_folder(&self.folder)
        };
        rename().map_err(|e| Error::file(&path, file::explain(e)))?;
        after(Stage::Renamed)?;
        file::write_atomic(self.folder.join(LATEST), format!("{name}\n").as_bytes())?;
        after(Stage::Pointed)?;
        self.prune(older)?;
        after(Stage::Pruned)?;
        Ok(path)
    }

    /// An unused name for a step: a run that went back may reach the same step again.
    fn free_name(&self, step: u64) -> String {
        let plain = format!("{PREFIX}{step:06}");
        let again = (1u64..).map(|n| format!("{plain}-{n}"));
        let mut names = std::iter::once(plain.clone()).chain(again);
        names.find(|name| !self.folder.join(name).exists()).unwrap_or(plain)
    }

    /// Keeps the newest, counting the one just written, and of the others only whole folders of ours are removed.
    fn prune(&self, older: Vec<Listed>) -> Result<()> {
        for old in older.into_iter().skip(self.keep - 1) {
            // Renamed first: a kill amid the removal must not leave a folder that looks like a checkpoint.
            let doomed = self.folder.join(format!("{}{TEMPORARY}", old.name));
            fs::rename(&old.path, &doomed).map_err(|e| Error::file(&old.path, e))?;
            fs::remove_dir_all(&doomed).map_err(|e| Error::file(&doomed, e))?;
        }
        Ok(())
    }

    /// Removes the files of a killed save.
    fn remove_temporary(&self) -> Result<()> {
        for (name, path) in self.folders()? {
            if name.starts_with(PREFIX) && name.ends_with(TEMPORARY) {
                fs::remove_dir_all(&path).map_err(|e| Error::file(&path, e))?;
            }
        }
        Ok(())
    }

    fn folders(&self) -> Result<Vec<(String, PathBuf)>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::file(&self.folder, e)),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::file(&self.folder, e))?;
            if let Some(name) = entry.file_name().to_str().filter(|_| entry.path().is_dir()) {
                folders.push((name.to_owned(), entry.path()));
            }
        }
        Ok(folders)
    }

    /// The checkpoints' folders, the newest first, those without a usable record last. Their other files are not read.
    fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (name, path) in self.folders()? {
            let Some(step) = parse_name(&name) else { continue };
            // The order of writing, not of steps, says which is newest: a run may have gone back to an earlier step.
            let sequence = Record::read(&path.join(RECORD)).ok().map(|record| record.sequence);
            listed.push(Listed { sequence, step, name, path });
        }
        listed.sort_by(|a, b| (b.sequence, b.step, &b.name).cmp(&(a.sequence, a.step, &a.name)));
        Ok(listed)
    }

    /// Whether there are checkpoints, whole or not.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be read.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.list()?.is_empty())
    }

    /// The newest whole checkpoint; `None` if there is no checkpoint at all. Skipped checkpoints are logged and listed in
    /// the result.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be read; [`Error::Format`] if there are checkpoints and none is whole.
    pub fn latest(&self) -> Result<Option<Loaded>> {
        let mut skipped = Vec::new();
        let (recorded, torn): (Vec<Listed>, Vec<Listed>) = self.list()?.into_iter().partition(|l| l.sequence.is_some());
        // Torn ones first: their age is unknown, and the user must see them.
        for listed in torn.into_iter().chain(recorded) {
            match Self::load(&listed.path) {
                Ok(loaded) => return Ok(Some(Loaded { skipped, ..loaded })),
                Err(error) => {
                    log::warn!("skipping a checkpoint: {error}");
                    skipped.push(error.to_string());
                }
            }
        }
        if skipped.is_empty() {
            Ok(None)
        } else {
            Err(Error::format(&self.folder, format!("no checkpoint is whole: {}", skipped.join("; "))))
        }
    }

    /// Reads the checkpoint in a folder after checking all of its files.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] with the file that is missing or damaged.
    pub fn load(path: impl AsRef<Path>) -> Result<Loaded> {
        let path = path.as_ref();
        let record_path = path.join(RECORD);
        let record = Record::read(&record_path)?;
        if let Some(missing) = [MODEL, OPTIMIZER, STATE].iter().find(|&&name| !record.files.contains_key(name)) {
            return Err(Error::format(record_path, format!("does not list {missing}")));
        }
        for (name, expected) in &record.files {
            let file = file::plain_name(&record_path, name)?;
            let (handle, _) = file::open(&file)?;
            let found = describe(handle).map_err(|e| Error::file(&file, e))?;
            if found != *expected {
                return Err(Error::format(
                    &file,
                    format!("is torn or damaged: {RECORD} says {expected}, it is {found}"),
                ));
            }
        }
        Ok(Loaded {
            path: path.to_owned(),
            step: record.step,
            model: Tensors::open(path.join(MODEL))?,
            optimizer: Tensors::open(path.join(OPTIMIZER))?,
            state: file::read_json(path.join(STATE))?,
            engine: record.engine,
            skipped: Vec::new(),
        })
    }
}

struct Listed {
    /// `None` if its record is torn.
    sequence: Option<u64>,
    step: u64,
    name: String,
    path: PathBuf,
}

/// The step of a checkpoint's folder: `step-000200`, `step-000200-1`.
fn parse_name(name: &str) -> Option<u64> {
    let numbers = name.strip_prefix(PREFIX)?;
    let (step, again) = numbers.split_once('-').unwrap_or((numbers, "0"));
    again.parse::<u64>().ok()?;
    step.parse().ok()
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
