//! Checkpoints of PyTorch (`pytorch_model.bin`), read as tensors: the pickle inside is not executed.
//!
//! A newer file is a ZIP archive, in which `data.pkl` describes the tensors and `data/KEY` holds the numbers of each storage. An older one is a
//! row of pickles (a magic number, a version, facts of the machine, the tensors, the keys of the storages) with the numbers behind them.

use super::file;
use super::folder::{if_missing, is_there};
use super::safetensors::{Found, OneFile, Tensors, map};
use super::shards::CONVERT;
use super::stored_zip;
use super::tensor_ref::Change;
use super::torch_pickle::{Pickles, Storage, Value, View};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The name of a model in one file.
pub(super) const SINGLE: &str = "pytorch_model.bin";
/// The index of a model in several.
pub(super) const INDEX: &str = "pytorch_model.bin.index.json";

/// The largest pickle: what describes tensors takes some hundred bytes for each.
const PICKLE_LIMIT: u64 = 64 << 20;
/// The number that an older file begins with, little-endian, as the pickle of a long.
const MAGIC: [u8; 13] = [0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The tensors of a folder's checkpoint, if it has one.
///
/// # Errors
/// [`Error::Format`] if a file is damaged or holds more than tensors; [`Error::File`].
pub(super) fn open(folder: &Path) -> Result<Option<Tensors>> {
    if is_there(&folder.join(SINGLE)) {
        return read(folder, &[folder.join(SINGLE)]).map(Some);
    }
    let index = folder.join(INDEX);
    if !is_there(&index) {
        return Ok(None);
    }
    let value = file::read_json(&index)?;
    let listed = value.get("weight_map").and_then(serde_json::Value::as_object);
    let listed =
        listed.ok_or_else(|| Error::format(&index, "has no object \"weight_map\" (tensor name → file name)"))?;
    let mut names: Vec<&str> = Vec::new();
    for (name, file) in listed {
        names.push(file.as_str().ok_or_else(|| Error::format(&index, format!("weight_map.{name} is not text")))?);
    }
    names.sort_unstable();
    names.dedup();
    let paths = names.into_iter().map(|name| file::plain_name(&index, name)).collect::<Result<Vec<_>>>()?;
    read(folder, &paths).map(Some)
}

fn read(folder: &Path, paths: &[PathBuf]) -> Result<Tensors> {
    let (mut files, mut all, mut from) = (Vec::new(), Vec::new(), BTreeMap::new());
    for path in paths {
        let file = map(path).map_err(|e| if_missing(e, &format!("{INDEX} names it: download it again")))?;
        let parts = tensors_of(file.bytes()).map_err(|what| Error::format(path, format!("{what}; {}", hint())))?;
        let number = files.len();
        files.push(file);
        for (name, found) in parts {
            if from.insert(name.clone(), path).is_some() {
                return Err(Error::format(
                    path,
                    format!("holds {name:?}, which another file of this model holds, too"),
                ));
            }
            let (file, range) = match found.numbers {
                Numbers::There(range) => (number, range),
                Numbers::Copied(bytes) => {
                    files.push(OneFile::Owned(bytes));
                    let last = files.len() - 1;
                    (last, 0..files[last].bytes().len())
                }
            };
            let (dtype, shape) = (found.dtype, found.shape.into());
            all.push(Found { name, file, dtype, shape, range, change: Change::None });
        }
    }
    let path = if let [one] = paths { one.clone() } else { folder.join(INDEX) };
    Ok(Tensors::found(&path, files, all))
}

fn hint() -> String {
    format!("if you trust the file, convert it once {CONVERT}")
}

/// A tensor of a file.
#[derive(Debug)]
struct Part {
    dtype: super::convert::FileType,
    shape: Vec<usize>,
    numbers: Numbers,
}

/// Where the numbers of a tensor are, in order.
#[derive(Debug)]
enum Numbers {
    There(Range<usize>),
    /// Put in order.
    Copied(Vec<u8>),
}

fn tensors_of(bytes: &[u8]) -> Result<BTreeMap<String, Part>, String> {
    if bytes.starts_with(b"PK") { of_archive(bytes) } else { of_pickles(bytes) }
}

fn of_archive(bytes: &[u8]) -> Result<BTreeMap<String, Part>, String> {
    // Names begin with the archive's own folder.
    let plain = |name: &str| name.split_once('/').map_or(name, |(_, name)| name).to_owned();
    let all = stored_zip::places(bytes)?;
    let places: HashMap<String, Range<usize>> = all.into_iter().map(|(name, range)| (plain(&name), range)).collect();
    let of = |name: &str| places.get(name).map(|range| &bytes[range.clone()]);
    if of("byteorder").is_some_and(|order| order.trim_ascii() != b"little") {
        return Err("has its numbers in big-endian order, which is not read".to_owned());
    }
    let pickle = of("data.pkl").ok_or("holds no data.pkl: is it a checkpoint of PyTorch?")?;
    if pickle.len() as u64 > PICKLE_LIMIT {
        return Err(format!("has a pickle of {} bytes, too many for a description of tensors", pickle.len()));
    }
    let mut pickles = Pickles::new(pickle);
    let root = pickles.next()?;
    let place = |storage: &Storage<'_>| places.get(&format!("data/{}", storage.key)).cloned();
    collect(bytes, &pickles, root, place)
}

fn of_pickles(bytes: &[u8]) -> Result<BTreeMap<String, Part>, String> {
    let protocol = if bytes.first() == Some(&0x80) { 2 } else { 0 };
    if !bytes.get(protocol..).is_some_and(|rest| rest.starts_with(&MAGIC)) {
        return Err("is no checkpoint of PyTorch".to_owned());
    }
    let limit = bytes.len().min(PICKLE_LIMIT as usize);
    let mut pickles = Pickles::new(&bytes[..limit]);
    pickles.next()?;
    let version = pickles.next()?;
    if !matches!(version, Value::Int(1001)) {
        return Err("is of another version of PyTorch's older format than 1001".to_owned());
    }
    let facts = pickles.next()?;
    let little =
        |(key, value): &(Value<'_>, Value<'_>)| matches!((key, value), (Value::Text("little_endian"), Value::Int(0)));
    if pickles.entries(facts).unwrap_or_default().iter().any(little) {
        return Err("has its numbers in big-endian order, which is not read".to_owned());
    }
    let root = pickles.next()?;
    let keys = pickles.next()?;
    // The numbers of each storage, behind how many there are.
    let mut at = pickles.at;
    let mut places: HashMap<&str, Range<usize>> = HashMap::new();
    let sizes: HashMap<&str, &Storage<'_>> = pickles.storages.iter().map(|storage| (storage.key, storage)).collect();
    for key in pickles.sequence(keys).ok_or("lists no storages")? {
        let Value::Text(key) = key else { return Err("lists what is no storage".to_owned()) };
        let storage = sizes.get(key).ok_or("lists a storage that no tensor has")?;
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or("is truncated")?;
        if usize::try_from(u64::from_le_bytes(*count)).ok() != Some(storage.count) {
            return Err("has another number of elements in a storage than it says".to_owned());
        }
        let size = storage.dtype.bytes(storage.count);
        let end = size.and_then(|size| (at + 8).checked_add(size)).filter(|end| *end <= bytes.len());
        let end = end.ok_or("is truncated")?;
        places.insert(key, at + 8..end);
        at = end;
    }
    collect(bytes, &pickles, root, |storage| places.get(storage.key).cloned())
}

/// The tensors of the dictionary at the root, or of its entry `state_dict` or `model`.
fn collect(
    bytes: &[u8],
    pickles: &Pickles<'_>,
    root: Value<'_>,
    place: impl Fn(&Storage<'_>) -> Option<Range<usize>>,
) -> Result<BTreeMap<String, Part>, String> {
    let entries = pickles.entries(root).ok_or("holds no dictionary of tensors")?;
    let inner = entries.iter().find_map(|(key, value)| match key {
        Value::Text("state_dict" | "model" | "model_state_dict") => pickles.entries(*value),
        _ => None,
    });
    let (mut parts, mut copied) = (BTreeMap::new(), 0);
    for (key, value) in inner.unwrap_or(entries) {
        let (Value::Text(name), Value::Tensor(tensor)) = (key, value) else { continue };
        let part = pickles.tensors.get(*tensor).ok_or_else(String::new).and_then(|view| {
            let storage = pickles.storages.get(view.storage).ok_or("it has no storage")?;
            let range = place(storage).ok_or_else(|| format!("its numbers (storage {:?}) are missing", storage.key))?;
            part(bytes, view, storage, range)
        });
        let part = part.map_err(|what| format!("tensor {name:?}: {what}"))?;
        if let Numbers::Copied(numbers) = &part.numbers {
            copied += numbers.len();
            if copied > bytes.len() {
                return Err("has more tensors that are not in order than it has numbers".to_owned());
            }
        }
        parts.insert((*name).to_owned(), part);
    }
    match parts.is_empty() {
        true => Err("holds no tensors by name".to_owned()),
        false => Ok(parts),
    }
}

fn part(bytes: &[u8], view: &View, storage: &Storage<'_>, range: Range<usize>) -> Result<Part, String> {
    let View { shape, strides, offset, .. } = view;
    let outside = || "it reaches outside of its storage".to_owned();
    let width = storage.dtype.bytes(1).unwrap_or(1);
    let held = range.len() / width;
    let count = shape.iter().try_fold(1_usize, |count, extent| count.checked_mul(*extent)).ok_or_else(outside)?;
    if strides.len() != shape.len() {
        return Err("it has a stride too many or too few".to_owned());
    }
    if count > held.min(storage.count) {
        return Err(outside());
    }
    let reach = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |reach, (extent, stride)| extent.saturating_sub(1).checked_mul(*stride)?.checked_add(reach));
    if count > 0 && reach.is_none_or(|reach| reach >= held) {
        return Err(outside());
    }
    let mut next = 1;
    let in_order = shape.iter().zip(strides).rev().all(|(extent, stride)| {
        let fits = *extent == 1 || *stride == next;
        next *= extent;
        fits
    });
    let numbers = if count == 0 {
        Numbers::There(range.start..range.start)
    } else if in_order {
        let start = range.start + offset * width;
        Numbers::There(start..start + count * width)
    } else {
        let mut ordered = Vec::with_capacity(count * width);
        for mut index in 0..count {
            let mut at = *offset;
            for (extent, stride) in shape.iter().zip(strides).rev() {
                at += index % extent * stride;
                index /= extent;
            }
            ordered.extend_from_slice(&bytes[range.start + at * width..][..width]);
        }
        Numbers::Copied(ordered)
    };
    Ok(Part { dtype: storage.dtype, shape: shape.clone(), numbers })
}

#[cfg(test)]
#[path = "torch_tests.rs"]
mod tests;
