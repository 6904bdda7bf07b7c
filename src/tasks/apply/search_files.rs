//! An index of files on disk: a folder with `index.json` and the vectors of the files' passages.

use super::TextEmbedder;
use super::passages::{passages, walk};
use crate::error::{Error, Result};
use crate::io::file::{Fingerprint, read_json_if_there};
use crate::io::{ModelFolder, NamedTensor, Tensors, folder, read_text, safetensors, write_atomic};
use crate::tasks::Pooling;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

const INDEX: &str = "index.json";
/// The version of the format.
const VERSION: u32 = 1;
/// The name of the tensor of vectors.
const VECTORS: &str = "vectors";
/// Passages that are read between two reports.
const CHUNK: usize = 1024;

/// How a file is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PassageKind {
    /// Its lines.
    Lines,
    /// What stands between blank lines.
    #[default]
    Paragraphs,
    /// As much as the model reads at a time.
    Windows,
}

/// How an index was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct SearchSettings {
    /// The model's folder.
    pub model: PathBuf,
    /// The fingerprint of its weights, by which another model is told.
    pub weights: String,
    /// Numbers of a vector.
    pub dimensions: usize,
    /// How files are divided.
    pub passages: PassageKind,
    /// Which states become vectors.
    pub pooling: Pooling,
    /// Put in front of passages.
    pub prefix: String,
    /// Put in front of queries.
    pub query_prefix: String,
    /// The most tokens of a passage; `None`: as many as the model has positions.
    pub context: Option<usize>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Passage {
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Where it begins, in bytes of the text.
    pub start: usize,
    /// One past its end.
    pub end: usize,
}

/// A file with its passages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IndexedFile {
    /// Its path, from the root.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
    /// When it was changed, in nanoseconds since 1970.
    pub modified: u64,
    /// The fingerprint of its text.
    pub text: String,
    /// Its passages, in order.
    pub passages: Vec<Passage>,
}

impl IndexedFile {
    /// Whether the file is as it was when it was read, by size and time.
    #[must_use]
    pub fn is_current(&self) -> bool {
        stamp(&self.path).is_ok_and(|stamp| stamp == (self.size, self.modified))
    }

    /// Its text, if that is as it was when the passages were read.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Format`] if the text is another.
    pub fn read(&self) -> Result<String> {
        let text = read_text(&self.path)?;
        match Fingerprint::of(text.as_bytes()) == self.text {
            true => Ok(text),
            false => Err(Error::format(&self.path, "has changed since it was read: update the index (--add)")),
        }
    }
}

/// What an update did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Files that were read, as new or changed ones.
    pub read: usize,
    /// Files that are as they were.
    pub unchanged: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Files of folders that are no text.
    pub skipped: usize,
}

/// The content of `index.json`.
#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    settings: SearchSettings,
    /// The name and the fingerprint of the file of vectors.
    vectors: String,
    fingerprint: String,
    files: Vec<IndexedFile>,
}

/// An index of files: their passages with vectors. On disk it is a folder; the file of vectors has a new name each time, and `index.json`, which
/// names it, is replaced in one step, so that a kill at any moment leaves the old index or the new one.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchFiles {
    settings: SearchSettings,
    /// By path.
    files: Vec<IndexedFile>,
    /// The vectors of all passages, of the files in order.
    vectors: Vec<f32>,
}

impl SearchFiles {
    /// An index of no files.
    #[must_use]
    pub fn new(settings: SearchSettings) -> Self {
        Self { settings, files: Vec::new(), vectors: Vec::new() }
    }

    /// Opens an index; `None` if the folder has none.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] if it is damaged, or of another version.
    pub fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(INDEX);
        let Some(value) = read_json_if_there(&path)? else { return Ok(None) };
        let again = format!("delete {} and build it again (--model and --add)", folder.display());
        if value["version"].as_u64() != Some(VERSION.into()) {
            let message = format!("is of version {}, and this program reads {VERSION}: {again}", value["version"]);
            return Err(Error::format(path, message));
        }
        let damaged = |what: &str| Error::format(&path, format!("is damaged ({what}): {again}"));
        let content: Content = serde_json::from_value(value).map_err(|e| damaged(&e.to_string()))?;
        let vectors_path = crate::io::file::plain_name(&path, &content.vectors)?;
        let tensors = Tensors::open(&vectors_path).map_err(|e| damaged(&e.to_string()))?;
        let vectors = tensors.expect(VECTORS).map_err(|e| damaged(&e.to_string()))?;
        if Fingerprint::of(vectors.bytes) != content.fingerprint {
            return Err(damaged("its vectors are others"));
        }
        let passages: usize = content.files.iter().map(|file| file.passages.len()).sum();
        if vectors.shape.dims() != [passages, content.settings.dimensions] {
            return Err(damaged("it has as many passages as it has no vectors for"));
        }
        let mut all = content.files.iter().flat_map(|file| &file.passages);
        if all.any(|passage| passage.start >= passage.end || passage.line == 0) {
            return Err(damaged("a passage is empty"));
        }
        if !content.files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(damaged("its files are not in order"));
        }
        let vectors = vectors.to_f32()?;
        Ok(Some(Self { settings: content.settings, files: content.files, vectors }))
    }

    /// How it was made.
    #[must_use]
    pub fn settings(&self) -> &SearchSettings {
        &self.settings
    }

    /// Its files, in the order of their paths.
    #[must_use]
    pub fn files(&self) -> &[IndexedFile] {
        &self.files
    }

    /// The vectors of the passages of all files, in a row.
    #[must_use]
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// The file and the passage of a vector.
    #[must_use]
    pub fn passage(&self, number: usize) -> Option<(&IndexedFile, Passage)> {
        let mut left = number;
        for file in &self.files {
            match file.passages.get(left) {
                Some(passage) => return Some((file, *passage)),
                None => left -= file.passages.len(),
            }
        }
        None
    }

    /// Takes files and folders in, and looks again at those that it has: what is new or changed is read, what is gone leaves. Of folders all
    /// files are taken whose names do not begin with a dot and that are text, except of `own`, the folder of the index. `done` is told how many passages of how many have been read.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Format`] for a file that is given and cannot be read; those of [`TextEmbedder::embed`].
    pub fn updated(
        self,
        paths: &[PathBuf],
        own: &Path,
        embedder: &mut TextEmbedder,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<(Self, Changes)> {
        let own = std::path::absolute(own).map_err(|e| Error::file(own, e))?;
        let mut changes = Changes::default();
        // Whether a file was given by its own name.
        let mut wanted: BTreeMap<PathBuf, bool> = self.files.iter().map(|file| (file.path.clone(), false)).collect();
        for path in paths {
            let path = std::path::absolute(path).map_err(|e| Error::file(path, e))?;
            match path.is_dir() {
                true => walk(&path, &mut |found| {
                    if !found.starts_with(&own) {
                        wanted.entry(found).or_insert(false);
                    }
                })?,
                false => {
                    wanted.insert(path, true);
                }
            }
        }
        let mut known: BTreeMap<PathBuf, (IndexedFile, Vec<f32>)> = BTreeMap::new();
        let mut first = 0;
        for file in self.files {
            let count = file.passages.len() * self.settings.dimensions;
            let vectors = self.vectors.get(first..first + count).unwrap_or_default().to_vec();
            first += count;
            known.insert(file.path.clone(), (file, vectors));
        }
        let mut kept: Vec<(IndexedFile, Vec<f32>)> = Vec::new();
        // New texts with the numbers of their files.
        let mut texts: Vec<(usize, String)> = Vec::new();
        for (path, given) in wanted {
            let old = known.remove(&path);
            let (size, modified) = match stamp(&path) {
                Ok(stamp) => stamp,
                Err(_) if old.is_some() && !given => {
                    changes.removed += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(old) = old.as_ref().filter(|(file, _)| (file.size, file.modified) == (size, modified)) {
                changes.unchanged += 1;
                kept.push(old.clone());
                continue;
            }
            let text = match read_text(&path) {
                Ok(text) => text,
                Err(Error::Format { .. }) if !given => {
                    changes.skipped += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let fingerprint = Fingerprint::of(text.as_bytes());
            match old {
                Some((file, vectors)) if file.text == fingerprint => {
                    changes.unchanged += 1;
                    kept.push((IndexedFile { size, modified, ..file }, vectors));
                }
                _ => {
                    changes.read += 1;
                    let passages = passages(&text, self.settings.passages, embedder, &self.settings.prefix)?;
                    texts.push((kept.len(), text));
                    kept.push((IndexedFile { path, size, modified, text: fingerprint, passages }, Vec::new()));
                }
            }
        }
        embed(&mut kept, &texts, embedder, &self.settings.prefix, done)?;
        let (files, vectors): (Vec<IndexedFile>, Vec<Vec<f32>>) = kept.into_iter().unzip();
        Ok((Self { settings: self.settings, files, vectors: vectors.concat() }, changes))
    }

    /// Saves the index to its folder.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be written; the old index is then as it was.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
        let bytes: &[u8] = bytemuck::cast_slice(&self.vectors);
        let fingerprint = Fingerprint::of(bytes);
        let vectors = format!("{VECTORS}-{fingerprint}.safetensors");
        let shape = [self.files.iter().map(|file| file.passages.len()).sum(), self.settings.dimensions];
        safetensors::write(folder.join(&vectors), &[NamedTensor::f32(VECTORS, shape, &self.vectors)])?;
        let (settings, files) = (self.settings.clone(), self.files.clone());
        let content = Content { version: VERSION, settings, vectors: vectors.clone(), fingerprint, files };
        let path = folder.join(INDEX);
        let json = serde_json::to_value(&content).map_err(|e| Error::format(&path, e.to_string()))?;
        write_atomic(&path, &folder::pretty(&json))?;
        // Vectors of older states.
        let entries = std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let old = |name: &String| name.starts_with("vectors-") && name.ends_with(".safetensors") && *name != vectors;
        for name in names.filter(old) {
            std::fs::remove_file(folder.join(&name)).map_err(|e| Error::file(folder.join(&name), e))?;
        }
        Ok(())
    }
}

/// Adds the vectors of the passages of these texts to their files.
fn embed(
    files: &mut [(IndexedFile, Vec<f32>)],
    texts: &[(usize, String)],
    embedder: &mut TextEmbedder,
    prefix: &str,
    done: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let mut parts: Vec<(usize, &str)> = Vec::new();
    for (file, text) in texts {
        let passages = files.get(*file).map_or(&[][..], |(file, _)| &file.passages);
        parts.extend(passages.iter().filter_map(|part| Some((*file, text.get(part.start..part.end)?))));
    }
    let mut before = 0;
    for chunk in parts.chunks(CHUNK) {
        let texts: Vec<&str> = chunk.iter().map(|(_, text)| *text).collect();
        let found = embedder.embed_behind(prefix, &texts, &mut |read| done(before + read, parts.len()))?;
        for ((file, _), vector) in chunk.iter().zip(found) {
            if let Some((_, vectors)) = files.get_mut(*file) {
                vectors.extend(vector);
            }
        }
        before += chunk.len();
    }
    Ok(())
}

/// A fingerprint of a model by its configuration, its tokenizer and the beginning of each of its tensors.
#[must_use]
pub fn model_fingerprint(folder: &ModelFolder) -> String {
    const BEGINNING: usize = 4096;
    let mut fingerprint = Fingerprint::new();
    fingerprint.update(folder.config.value().to_string().as_bytes());
    if let Some(tokenizer) = &folder.tokenizer {
        fingerprint.update(tokenizer.to_json().as_bytes());
    }
    let adapter = folder.adapter.iter().flat_map(|adapter| adapter.tensors.iter());
    for tensor in folder.tensors.iter().chain(adapter) {
        fingerprint.update(tensor.name.as_bytes());
        fingerprint.update(tensor.bytes.get(..BEGINNING).unwrap_or(tensor.bytes));
    }
    fingerprint.finish()
}

/// Size and time of a file.
fn stamp(path: &Path) -> Result<(u64, u64)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::file(path, e))?;
    if !metadata.is_file() {
        return Err(Error::format(path, "is a device, a pipe or a socket, a file was expected"));
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok((metadata.len(), modified.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))))
}
