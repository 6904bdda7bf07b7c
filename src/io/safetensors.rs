//! Safetensors files: tensors by name, read through a memory map and written by rename.
//!
//! The format: eight bytes with the length of a JSON header, the header (name → type, shape, range of bytes), the bytes. What
//! is read is checked whole when the file is opened, so that no offset can lead outside the file.

use super::convert::FileType;
#[cfg(feature = "files")]
use super::file;
#[cfg(feature = "files")]
use super::folder::{if_missing, is_there};
use super::ranges::part;
#[cfg(feature = "files")]
use super::{shards, torch};
use crate::error::{Error, Result};
use crate::shape::Shape;
#[cfg(feature = "files")]
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[cfg(any(test, feature = "files"))]
pub(crate) use super::safetensors_write::Layout;
#[cfg(feature = "files")]
pub use super::safetensors_write::write;
pub use super::safetensors_write::{NamedTensor, to_bytes};
use super::tensor_ref::Change;
pub use super::tensor_ref::TensorRef;
pub use safetensors::Dtype;

/// Bytes in front of the header.
pub(super) const PREFIX: usize = 8;
/// A longer header means a damaged file; the reference implementation has the same limit.
pub(super) const HEADER_LIMIT: usize = 100_000_000;
/// How a pointer of Git LFS begins: it is as long as a prefix.
const GIT_LFS: &[u8] = b"version ";
/// Hugging Face's name of the file with all tensors.
pub const SINGLE: &str = "model.safetensors";
/// Hugging Face's name of the index of the files of a large model.
pub const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a file, or of the files of one model: read-only, by name.
///
/// A file is mapped, not copied. Replacing it by rename (as everything here writes) is safe while it is open; shortening it in
/// place is not; programs that handle models do not do that.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    files: Vec<OneFile>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

/// The file and range of a tensor.
#[derive(Debug)]
struct Entry {
    file: usize,
    start: usize,
    end: usize,
    dtype: FileType,
    shape: Shape,
    change: Change,
}

/// A tensor found by the reader of another format; its bytes are checked to be inside the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// The number of its file.
    pub(super) file: usize,
    pub(super) dtype: FileType,
    pub(super) shape: Shape,
    pub(super) range: Range<usize>,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum OneFile {
    #[cfg(feature = "files")]
    Mapped(Mmap),
    Owned(Vec<u8>),
    /// A file that is read part by part: what was read so far, by its first byte. One begins at 0.
    Parts {
        length: usize,
        read: BTreeMap<usize, Vec<u8>>,
    },
}

impl OneFile {
    /// The file; of one that is read part by part, its beginning.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            #[cfg(feature = "files")]
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
            Self::Parts { read, .. } => read.get(&0).map_or(&[], Vec::as_slice),
        }
    }

    /// The length of the whole file.
    pub(super) fn length(&self) -> usize {
        if let Self::Parts { length, .. } = self { *length } else { self.bytes().len() }
    }

    /// Bytes of the file, if they were read.
    pub(super) fn get(&self, range: Range<usize>) -> Option<&[u8]> {
        let Self::Parts { read, .. } = self else { return self.bytes().get(range) };
        let (first, part) = read.range(..=range.start).next_back()?;
        part.get(range.start - first..range.end.checked_sub(*first)?)
    }
}

impl Tensors {
    /// Opens a file; or a sharded model by its `….index.json`; or a folder that holds either (one file wins, as in Hugging
    /// Face's libraries), or all parts of a sharded model without their index, or a checkpoint of PyTorch (`pytorch_model.bin`, in one file or
    /// several), whose pickle is read as data and not executed.
    ///
    /// # Errors
    /// [`Error::File`] if something cannot be read; [`Error::Format`] if it is damaged, and what to do.
    #[cfg(feature = "files")]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let (single, index) = (path.join(SINGLE), path.join(INDEX));
            return match (is_there(&single), is_there(&index)) {
                (true, _) => Self::open_file(&single),
                (false, true) => Self::open_sharded(&index),
                (false, false) => match shards::without_index(path)? {
                    Some(files) => Self::open_shards(path, &files),
                    None => torch::open(path)?.ok_or_else(|| Error::format(path, shards::no_weights(path))),
                },
            };
        }
        let is_index = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        if is_index { Self::open_sharded(path) } else { Self::open_file(path) }
    }

    /// The tensors of a file that is in memory; `label` stands for its path in messages.
    ///
    /// # Errors
    /// [`Error::Format`] if it is damaged.
    pub fn from_bytes(label: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self> {
        let mut tensors = Self::empty(label.into());
        let label = tensors.path.clone();
        tensors.add(&label, OneFile::Owned(bytes))?;
        Ok(tensors)
    }

    /// The tensors of a file of `length` bytes of which only the header is read, by `read`; their names, types and shapes are known then, and
    /// [`crate::models::load_weights_async`] reads them one by one.
    ///
    /// # Errors
    /// [`Error::Format`] if it is damaged; those of `read`.
    pub async fn open_async(
        label: impl Into<PathBuf>,
        length: u64,
        read: &mut impl AsyncFnMut(Range<u64>) -> Result<Vec<u8>>,
    ) -> Result<Self> {
        let mut tensors = Self::empty(label.into());
        let label = tensors.path.clone();
        let whole = usize::try_from(length).map_err(|_| Error::format(&label, "is too long for this machine"))?;
        let mut head = part(&label, 0..length.min(PREFIX as u64), read).await?;
        // What the header then turns out to be is said when all of it is there.
        let size = head.first_chunk().map_or(0, |size| u64::from_le_bytes(*size)).min(HEADER_LIMIT as u64 + 1);
        let end = (PREFIX as u64 + size).min(length);
        if !head.starts_with(GIT_LFS) && size <= HEADER_LIMIT as u64 && end > PREFIX as u64 {
            head.extend(part(&label, PREFIX as u64..end, read).await?);
        }
        tensors.add(&label, OneFile::Parts { length: whole, read: [(0, head)].into() })?;
        Ok(tensors)
    }

    /// The tensors found by the reader of another format, each name once.
    pub(super) fn found(path: &Path, files: Vec<OneFile>, tensors: Vec<Found>) -> Self {
        let mut all = Self::empty(path.to_owned());
        all.entries.extend(tensors.into_iter().map(|Found { name, file, dtype, shape, range, change }| {
            (name, Entry { file, start: range.start, end: range.end, dtype, shape, change })
        }));
        all.files = files;
        all
    }

    fn empty(path: PathBuf) -> Self {
        Self { path, files: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() }
    }

    #[cfg(feature = "files")]
    fn open_file(path: &Path) -> Result<Self> {
        let mut tensors = Self::empty(path.to_owned());
        tensors.add(path, map(path).map_err(|e| if_missing(e, "is its path right?"))?)?;
        Ok(tensors)
    }

    #[cfg(feature = "files")]
    fn open_sharded(index: &Path) -> Result<Self> {
        let value = file::read_json(index).map_err(|e| if_missing(e, "is its path right?"))?;
        let listed = value.get("weight_map").and_then(serde_json::Value::as_object).ok_or_else(|| {
            Error::format(index, "has no object \"weight_map\" (tensor name → file name): is it a safetensors index?")
        })?;
        let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, file) in listed {
            let file = file.as_str().ok_or_else(|| Error::format(index, format!("weight_map.{name} is not text")))?;
            shards.entry(file).or_default().push(name);
        }
        let mut tensors = Self::empty(index.to_owned());
        for (shard, names) in shards {
            let path = file::plain_name(index, shard)?;
            let number = tensors.files.len();
            let missing = |e| if_missing(e, &format!("{INDEX} names it: download it again"));
            tensors.add(&path, map(&path).map_err(missing)?)?;
            let here = |name: &&&str| tensors.entries.get(**name).is_some_and(|e| e.file == number);
            if let Some(missing) = names.iter().find(|name| !here(name)) {
                let message = format!("does not hold {missing:?}, which {INDEX} lists: download both again");
                return Err(Error::format(&path, message));
            }
        }
        Ok(tensors)
    }

    /// All tensors of some files of one model.
    #[cfg(feature = "files")]
    fn open_shards(folder: &Path, files: &[PathBuf]) -> Result<Self> {
        log::warn!("{}: {INDEX} is missing; all {} parts are read", folder.display(), files.len());
        let mut tensors = Self::empty(folder.to_owned());
        for path in files {
            tensors.add(path, map(path)?)?;
        }
        Ok(tensors)
    }

    /// Adds a file's tensors after checking every one of them.
    fn add(&mut self, path: &Path, content: OneFile) -> Result<()> {
        let bytes = content.bytes();
        let (data, metadata) = header(bytes).map_err(|message| Error::format(path, message))?;
        let promised = metadata.data_len();
        let there = content.length() - data;
        if promised != there {
            let what = if promised > there { "is truncated" } else { "has bytes after its end" };
            let message = format!(
                "{what}: its header lists {promised} bytes of tensors, {there} follow; copy or download it again"
            );
            return Err(Error::format(path, message));
        }
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                start: data + start,
                end: data + end,
                dtype: FileType::Plain(info.dtype),
                shape: info.shape.clone().into(),
                change: Change::None,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(Error::format(
                    path,
                    format!("holds {name:?}, which another file of this model holds, too"),
                ));
            }
        }
        self.metadata.extend(metadata.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        self.files.push(content);
        Ok(())
    }

    /// The file, index or label it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of tensors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = TensorRef<'_>> {
        self.entries.iter().map(|(name, entry)| self.tensor(name, entry))
    }

    /// The metadata of the file, such as `format: pt`.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The tensor of that name, if it exists.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<TensorRef<'_>> {
        self.entries.get_key_value(name).map(|(name, entry)| self.tensor(name, entry))
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`Error::Format`] if it is missing, with similar names.
    pub fn expect(&self, name: &str) -> Result<TensorRef<'_>> {
        self.get(name).ok_or_else(|| {
            let last =
                name.rsplit('.').find(|part| part.parse::<u32>().is_err() && *part != "weight" && *part != "bias");
            let like = self.names().filter(|n| last.is_some_and(|last| n.contains(last))).take(4);
            let like: Vec<_> = like.map(|n| format!("{n:?}")).collect();
            let hint = if like.is_empty() {
                "is it of another model family?".into()
            } else {
                format!("like it: {}", like.join(", "))
            };
            Error::format(&self.path, format!("has no tensor {name:?} among its {}; {hint}", self.len()))
        })
    }

    /// The tensor of that name, which must have that shape.
    ///
    /// # Errors
    /// [`Error::Format`] if it is missing or has another shape.
    pub fn expect_shape(&self, name: &str, shape: &Shape) -> Result<TensorRef<'_>> {
        let tensor = self.expect(name)?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        let message = format!(
            "{name:?} has shape {}, the configuration needs {shape}: are both files of the same model?",
            tensor.shape
        );
        Err(Error::format(&self.path, message))
    }

    fn tensor<'a>(&'a self, name: &'a str, entry: &'a Entry) -> TensorRef<'a> {
        let &Entry { file, start, end, dtype, ref shape, change } = entry;
        let bytes = self.files[file].get(start..end);
        let (absent, bytes) = (bytes.is_none(), bytes.unwrap_or(&[]));
        TensorRef { path: &self.path, name, dtype, shape, bytes, absent, range: [start, end], change }
    }
}

#[cfg(feature = "files")]
pub(super) fn map(path: &Path) -> Result<OneFile> {
    let (handle, length) = file::open(path)?;
    if length == 0 {
        return Ok(OneFile::Owned(Vec::new()));
    }
    // SAFETY: the map is read-only and lives as long as what borrows from it. Another process that shortens the file in
    // place could still make a read fail with a signal; the type's documentation says so.
    #[allow(unsafe_code, reason = "memory maps cannot be made in safe Rust")]
    let map = unsafe { Mmap::map(&handle) };
    map.map(OneFile::Mapped).map_err(|e| Error::file(path, e))
}

/// The header, checked, and where the data begin.
fn header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        let length = bytes.len();
        return Err(format!("is {length} bytes long, too short for a safetensors file; copy or download it again"));
    };
    if bytes.starts_with(GIT_LFS) {
        return Err("is a Git LFS pointer, not the weights: run `git lfs pull` in its folder".into());
    }
    let length = u64::from_le_bytes(*prefix);
    if length > HEADER_LIMIT as u64 {
        return Err(format!("claims a header of {length} bytes: it is damaged or not a safetensors file"));
    }
    let length = length as usize;
    let text = rest.get(..length).ok_or_else(|| {
        format!("is truncated: its header should have {length} bytes, {} follow; copy or download it again", rest.len())
    })?;
    let metadata: Metadata =
        serde_json::from_slice(text).map_err(|e| format!("has a damaged header ({e}); copy or download it again"))?;
    Ok((PREFIX + length, metadata))
}

#[cfg(test)]
#[path = "safetensors_tests.rs"]
mod tests;
