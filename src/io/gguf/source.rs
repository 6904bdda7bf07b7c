//! A file's keys of its architecture, with a record of which were read, and its tensors.

use super::metadata::Metadata;
use super::reader::Info;
use crate::error::{Error, Result};
use crate::io::convert::Numbers;
use crate::io::safetensors::OneFile;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Keys that say nothing about what is computed.
const HARMLESS: [&str; 4] = ["vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type"];

/// More than any model has.
const MOST_LAYERS: u64 = 4096;

/// What describes a model in its file or files.
pub(super) struct Source<'a> {
    pub(super) metadata: &'a Metadata<'a>,
    pub(super) tensors: &'a BTreeMap<&'a str, Info>,
    pub(super) contents: &'a [OneFile],
    /// What stands in front of the architecture's keys.
    pub(super) architecture: &'static str,
    pub(super) read: RefCell<BTreeSet<String>>,
}

impl Source<'_> {
    fn key(&self, key: &str) -> String {
        let key = format!("{}.{key}", self.architecture);
        self.read.borrow_mut().insert(key.clone());
        key
    }

    /// An error about a key of the architecture.
    pub(super) fn refuse(&self, key: &str, message: impl std::fmt::Display) -> Error {
        self.metadata.refuse(&self.key(key), message)
    }

    /// An error about the file.
    pub(super) fn damaged(&self, message: impl Into<String>) -> Error {
        Error::format(self.metadata.path, message)
    }

    /// Notes that a key says nothing here.
    pub(super) fn leave(&self, key: &str) {
        self.key(key);
    }

    pub(super) fn has_key(&self, key: &str) -> bool {
        self.metadata.values.contains_key(format!("{}.{key}", self.architecture).as_str())
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<u64>> {
        self.metadata.count(&self.key(key))
    }

    pub(super) fn expect_count(&self, key: &str) -> Result<u64> {
        self.metadata.expect_count(&self.key(key))
    }

    /// A count, or a list of equal counts, one for each layer.
    pub(super) fn layers_count(&self, key: &str) -> Result<Option<u64>> {
        self.metadata.layers_count(&self.key(key))
    }

    pub(super) fn expect_layers_count(&self, key: &str) -> Result<u64> {
        self.metadata.expect_layers_count(&self.key(key))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata.number(&self.key(key))
    }

    /// A number, none if it is 0 as well: converters write that for what a model does not have.
    pub(super) fn some_number(&self, key: &str) -> Result<Option<f64>> {
        Ok(self.number(key)?.filter(|number| *number != 0.0))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.flag(&self.key(key))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.metadata.text(&self.key(key))
    }

    /// Refuses a number that is none of these: the family has nothing that it would change.
    pub(super) fn only(&self, key: &str, allowed: &[f64]) -> Result<()> {
        match self.number(key)?.filter(|number| !allowed.contains(number)) {
            Some(number) => {
                Err(self.refuse(key, format!("is {number}, which the family of this model does not have here")))
            }
            None => Ok(()),
        }
    }

    /// Keys of the architecture that nothing has asked for.
    pub(super) fn unread(&self) -> Vec<String> {
        let front = format!("{}.", self.architecture);
        let read = self.read.borrow();
        let all = self.metadata.values.keys().filter_map(|key| Some((key, key.strip_prefix(front.as_str())?)));
        all.filter(|(key, rest)| !read.contains(**key) && !HARMLESS.contains(rest))
            .map(|(key, _)| (*key).to_owned())
            .collect()
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// An extent of a tensor, if it has that axis.
    pub(super) fn extent(&self, tensor: &str, axis: usize) -> Option<u64> {
        self.tensors.get(tensor)?.shape.dims().get(axis).map(|&extent| extent as u64)
    }

    /// A count of layers, the last of which has a tensor of that name.
    pub(super) fn layers(&self, key: &str, name: impl Fn(u64) -> String) -> Result<u64> {
        let layers = self.expect_count(key)?;
        let last = name(layers.saturating_sub(1));
        match (1..=MOST_LAYERS).contains(&layers) && self.has(&last) {
            true => Ok(layers),
            false => Err(self.refuse(key, format!("gives {layers}, but tensor {last:?} is missing"))),
        }
    }

    /// The numbers of a small tensor.
    pub(super) fn values(&self, tensor: &str) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.tensors.get(tensor) else { return Ok(None) };
        let bytes = self.contents[info.file].get(info.range.clone());
        let bytes = bytes.ok_or_else(|| self.damaged(format!("tensor {tensor:?} was not read with the header")))?;
        let numbers = Numbers { dtype: info.dtype, row_len: info.shape.last(), bytes: bytes.into() };
        numbers.to_f32().map(Some).map_err(|message| self.damaged(format!("tensor {tensor:?}: {message}")))
    }

    /// Compares a count of the metadata with the first of these tensors that is there: an axis, whose extent must be `times` as large. So no
    /// model is built of a damaged number.
    pub(super) fn check(&self, key: &str, count: u64, tensors: &[(&str, usize, u64)]) -> Result<()> {
        let there = tensors.iter().find(|(name, ..)| self.has(name)).or(tensors.first());
        let Some(&(name, axis, times)) = there else { return Ok(()) };
        if count > 0 && self.extent(name, axis) == count.checked_mul(times) {
            return Ok(());
        }
        let there = self.tensors.get(name);
        let there = there.map_or("is missing".into(), |info| format!("has shape {}", info.shape));
        Err(self.refuse(key, format!("gives {count}, but tensor {name:?} {there}")))
    }
}
