//! The inputs of a program: one buffer, a copy of it on the CPU, and what of it has to be sent.

use super::{Recording, Source};
use crate::error::{Error, Result};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::ops::Range;

/// Offsets inside the buffer: what every adapter accepts as a binding offset.
const ALIGNMENT: usize = 256;

/// Where the inputs lie, and what was written to them since the last run.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    places: HashMap<String, (usize, TensorType)>,
    bytes: Vec<u8>,
    written: Vec<Range<usize>>,
}

impl Inputs {
    /// Lays out the inputs of a recording; gives the offset of each slot that is one.
    pub(super) fn new(recording: &Recording) -> (Self, HashMap<usize, u64>) {
        let mut inputs = Self::default();
        let mut offsets = HashMap::new();
        for (index, slot) in recording.slots.iter().enumerate() {
            if let Source::Input(name) = &slot.source {
                let offset = inputs.bytes.len();
                inputs.places.insert(name.clone(), (offset, slot.ty.clone()));
                inputs.bytes.resize(offset + (slot.ty.bytes() as usize).next_multiple_of(ALIGNMENT), 0);
                offsets.insert(index, offset as u64);
            }
        }
        (inputs, offsets)
    }

    /// Bytes of the buffer.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The offset and size of an input in bytes.
    pub(super) fn place(&self, name: &str) -> Result<(u64, u64)> {
        self.find(name).map(|(offset, ty)| (*offset as u64, ty.bytes()))
    }

    fn find(&self, name: &str) -> Result<&(usize, TensorType)> {
        self.places.get(name).ok_or_else(|| {
            let mut names: Vec<&str> = self.places.keys().map(String::as_str).collect();
            names.sort_unstable();
            Error::input(name, format!("the program has no input of this name; it has: {}", names.join(", ")))
        })
    }

    /// Takes the new value of an input.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (offset, ty) = self.find(name)?;
        if bytes.len() as u64 != ty.bytes() {
            return Err(Error::input(name, format!("{ty} takes {} bytes, got {}", ty.bytes(), bytes.len())));
        }
        let range = *offset..offset + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        if !self.written.contains(&range) {
            self.written.push(range);
        }
        Ok(())
    }

    /// Hands out what was written since the last call, joined where it touches.
    pub(super) fn send(&mut self, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        self.written.sort_unstable_by_key(|r| r.start);
        let mut pending: Option<Range<usize>> = None;
        for range in self.written.drain(..) {
            match &mut pending {
                Some(open) if range.start < open.end + ALIGNMENT => open.end = open.end.max(range.end),
                open => {
                    if let Some(done) = open.replace(range) {
                        each(done.start as u64, &self.bytes[done])?;
                    }
                }
            }
        }
        if let Some(done) = pending {
            each(done.start as u64, &self.bytes[done])?;
        }
        Ok(())
    }
}
