//! The inputs of a program: one buffer, a copy of it on the CPU, and what of it has to be sent.

use super::{Recording, Source};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::TensorType;
use std::collections::HashMap;
use std::ops::Range;

/// Offsets inside the buffer: what every adapter accepts as a binding offset.
const ALIGNMENT: usize = 256;

/// Where the inputs lie, and what was written to them since the last run.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    places: HashMap<String, Place>,
    bytes: Vec<u8>,
    written: Vec<Range<usize>>,
}

/// Where an input lies, and what may be written there.
#[derive(Debug)]
struct Place {
    offset: usize,
    ty: TensorType,
    /// Whole numbers must be below.
    below: Option<usize>,
}

impl Place {
    /// Refuses ids and labels that name nothing.
    fn check(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(below) = self.below else { return Ok(()) };
        let number = |word: &[u8]| i64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let numbers = bytes.chunks_exact(4).map(number);
        // Negative labels are those that do not count.
        let numbers = numbers.map(|n| if self.ty.dtype == DType::I32 { i64::from(n as i32) } else { n });
        let Some((at, found)) = numbers.enumerate().find(|(_, number)| *number >= below as i64) else { return Ok(()) };
        let message = format!(
            "element {at} is {found}, and what it chooses from has {below} entries. Do the data, the tokenizer and the model \
             belong together?"
        );
        Err(Error::input(name, message))
    }
}

impl Inputs {
    /// Lays out the inputs of a recording; gives the offset of each slot that is one.
    pub(super) fn new(recording: &Recording) -> (Self, HashMap<usize, u64>) {
        let mut inputs = Self::default();
        let mut offsets = HashMap::new();
        for (index, slot) in recording.slots.iter().enumerate() {
            if let Source::Input(name) = &slot.source {
                let offset = inputs.bytes.len();
                inputs.places.insert(name.clone(), Place { offset, ty: slot.ty.clone(), below: slot.below });
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
        self.find(name).map(|place| (place.offset as u64, place.ty.bytes()))
    }

    fn find(&self, name: &str) -> Result<&Place> {
        self.places.get(name).ok_or_else(|| {
            let mut names: Vec<&str> = self.places.keys().map(String::as_str).collect();
            names.sort_unstable();
            Error::input(name, format!("the program has no input of this name; it has: {}", names.join(", ")))
        })
    }

    /// Takes the new value of an input.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let place = self.find(name)?;
        let ty = &place.ty;
        if bytes.len() as u64 != ty.bytes() {
            return Err(Error::input(name, format!("{ty} takes {} bytes, got {}", ty.bytes(), bytes.len())));
        }
        place.check(name, bytes)?;
        let range = place.offset..place.offset + bytes.len();
        self.bytes[range.clone()].copy_from_slice(bytes);
        if !self.written.contains(&range) {
            self.written.push(range);
        }
        Ok(())
    }

    /// Whether anything was written since it was sent.
    pub(super) fn written(&self) -> bool {
        !self.written.is_empty()
    }

    /// Hands out what was written since the last call, joined where it touches, and gives it back as ranges. After an error it still
    /// has to be sent.
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

    /// Takes note that what [`Inputs::send`] gave did not arrive.
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
    fn ids_and_labels_that_name_nothing_are_refused() -> Result<()> {
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
        let (mut inputs, _) = Inputs::new(&Recording::new(&g, &Caps::baseline())?);
        let mut said = |name: &str, values: [i32; 4]| {
            inputs.write(name, bytemuck::cast_slice(&values)).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!((said("ids", [0, 6, 3, 1]), said("labels", [4, -100, 0, -1])), Default::default());
        let message = said("ids", [0, 1, 7, 8]);
        assert!(message.starts_with("ids: element 2 is 7, and what it chooses from has 7 entries"), "{message}");
        assert!(said("ids", [-1, 0, 0, 0]).contains("element 0 is 4294967295"));
        assert!(said("labels", [0, 5, 0, 0]).contains("element 1 is 5, and what it chooses from has 5"));
        Ok(())
    }
}
