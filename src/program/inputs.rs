//! The inputs of a program: one buffer, its copy on the CPU, and the ranges that have to be sent.

use super::{Recording, Source};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::ops::Range;

/// Alignment in the buffer: a binding offset that every adapter accepts.
const ALIGNMENT: usize = 256;

/// The slots of the inputs, their values, and the ranges written since the last run.
#[derive(Debug, Default)]
pub(super) struct InputBuffer {
    slots: HashMap<String, InputSlot>,
    bytes: Vec<u8>,
    written: Vec<Range<usize>>,
}

/// The offset of an input, its type and its bound.
#[derive(Debug)]
struct InputSlot {
    offset: usize,
    ty: TensorType,
    /// The exclusive upper bound of integer values.
    below: Option<usize>,
}

impl InputSlot {
    /// Refuses ids and labels that are out of range.
    fn check(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(below) = self.below else { return Ok(()) };
        let number = |word: &[u8]| i64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let numbers = bytes.chunks_exact(4).map(number);
        // Negative labels are ignored by losses.
        let numbers = numbers.map(|n| if self.ty.dtype == DType::I32 { i64::from(n as i32) } else { n });
        let Some((at, found)) = numbers.enumerate().find(|(_, number)| *number >= below as i64) else { return Ok(()) };
        let message = format!(
            "element {at} is {found}, which is out of range: it must be below {below}. Do the data, the tokenizer and the model \
             belong together?"
        );
        Err(Error::input(name, message))
    }
}

impl InputBuffer {
    /// Lays out the inputs of a recording that do not lie elsewhere; returns the offset of each input's slot.
    pub(super) fn new<T>(recording: &Recording, elsewhere: &HashMap<String, T>) -> (Self, HashMap<usize, u64>) {
        let mut inputs = Self::default();
        let mut offsets = HashMap::new();
        for (index, slot) in recording.slots.iter().enumerate() {
            if let Source::Input(name) = &slot.source
                && !elsewhere.contains_key(name)
            {
                let offset = inputs.bytes.len();
                inputs.slots.insert(name.clone(), InputSlot { offset, ty: slot.ty.clone(), below: slot.below });
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
    pub(super) fn range(&self, name: &str) -> Result<(u64, u64)> {
        self.find(name).map(|slot| (slot.offset as u64, slot.ty.bytes()))
    }

    fn find(&self, name: &str) -> Result<&InputSlot> {
        self.slots.get(name).ok_or_else(|| {
            let mut names: Vec<&str> = self.slots.keys().map(String::as_str).collect();
            names.sort_unstable();
            Error::input(name, format!("the program has no input of this name; it has: {}", names.join(", ")))
        })
    }

    /// Stores the new value of an input.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let slot = self.find(name)?;
        let ty = &slot.ty;
        if bytes.len() as u64 != ty.bytes() {
            return Err(Error::input(name, format!("{ty} takes {} bytes, got {}", ty.bytes(), bytes.len())));
        }
        slot.check(name, bytes)?;
        let range = slot.offset..slot.offset + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        if !self.written.contains(&range) {
            self.written.push(range);
        }
        Ok(())
    }

    /// Whether anything was written since the last send.
    pub(super) fn written(&self) -> bool {
        !self.written.is_empty()
    }

    /// Passes the ranges written since the last call to `each`, neighbours joined, and returns them. After an error they remain to be sent.
    pub(super) fn send(&mut self, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<Vec<Range<usize>>> {
        self.written.sort_unstable_by_key(|r| r.start);
        let mut joined: Vec<Range<usize>> = Vec::with_capacity(self.written.len());
        for range in &self.written {
            match joined.last_mut() {
                Some(open) if range.start < open.end + ALIGNMENT => open.end = open.end.max(range.end),
                _ => joined.push(range.clone()),
            }
        }
        for range in &joined {
            each(range.start as u64, &self.bytes[range.clone()])?;
        }
        self.written.clear();
        Ok(joined)
    }

    /// Marks the ranges of [`InputBuffer::send`] as not sent.
    pub(super) fn take_back(&mut self, sent: Vec<Range<usize>>) {
        self.written.extend(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::kernel::Caps;
    use crate::ops::{self, CrossEntropyOptions, WeightLayout};

    #[test]
    fn ids_and_labels_out_of_range_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let ids = g.input("ids", [2, 2], DType::U32)?;
        let labels = g.input("labels", [2, 2], DType::I32)?;
        let table = g.parameter("table", [7, 4], DType::F32)?;
        let head = g.parameter("head", [5, 4], DType::F32)?;
        let flat = ops::reshape(&mut g, ids, [4])?;
        let x = ops::embedding(&mut g, table, flat)?;
        let x = ops::reshape(&mut g, x, [2, 2, 4])?;
        let options = CrossEntropyOptions::default();
        let loss = ops::linear_cross_entropy(&mut g, x, head, None, WeightLayout::OutIn, labels, &options)?;
        g.output("loss", loss)?;
        let (mut inputs, _) = InputBuffer::new(&Recording::new(&g, &Caps::baseline())?, &HashMap::<String, ()>::new());
        let mut error_of = |name: &str, values: [i32; 4]| {
            inputs.write(name, bytemuck::cast_slice(&values)).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!((error_of("ids", [0, 6, 3, 1]), error_of("labels", [4, -100, 0, -1])), Default::default());
        let message = error_of("ids", [0, 1, 7, 8]);
        assert!(message.starts_with("ids: element 2 is 7, which is out of range: it must be below 7"), "{message}");
        assert!(error_of("ids", [-1, 0, 0, 0]).contains("element 0 is 4294967295"));
        assert!(error_of("labels", [0, 5, 0, 0]).contains("element 1 is 5, which is out of range: it must be below 5"));
        Ok(())
    }
}
