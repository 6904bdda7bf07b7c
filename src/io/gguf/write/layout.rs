//! The bytes of a GGUF file.

use super::Out;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::quantised;
use half::{bf16, f16};
use std::borrow::Cow;
use std::io;

/// The alignment of tensors.
const ALIGNMENT: u64 = 32;
const VERSION: u32 = 3;

/// A value of the metadata.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Count(u32),
    Number(f32),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f32>),
    Integers(Vec<i32>),
    Flags(Vec<bool>),
    Bytes(Vec<u8>),
}

/// An entry of the metadata.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Cow<'static, str>,
    pub(super) item: Item,
}

impl Entry {
    pub(super) fn new(key: impl Into<Cow<'static, str>>, item: Item) -> Self {
        Self { key: key.into(), item }
    }

    pub(super) fn text(key: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self::new(key, Item::Text(text.into()))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_text(out, &self.key);
        let kind = |out: &mut Vec<u8>, kind: u32| out.extend(kind.to_le_bytes());
        let list = |out: &mut Vec<u8>, of: u32, count: usize| {
            kind(out, 9);
            kind(out, of);
            out.extend((count as u64).to_le_bytes());
        };
        match &self.item {
            Item::Count(count) => {
                kind(out, 4);
                out.extend(count.to_le_bytes());
            }
            Item::Number(number) => {
                kind(out, 6);
                out.extend(number.to_le_bytes());
            }
            Item::Flag(flag) => {
                kind(out, 7);
                out.push(u8::from(*flag));
            }
            Item::Text(text) => {
                kind(out, 8);
                put_text(out, text);
            }
            Item::Texts(texts) => {
                list(out, 8, texts.len());
                texts.iter().for_each(|text| put_text(out, text));
            }
            Item::Numbers(numbers) => {
                list(out, 6, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Item::Integers(integers) => {
                list(out, 5, integers.len());
                integers.iter().for_each(|integer| out.extend(integer.to_le_bytes()));
            }
            Item::Bytes(bytes) => {
                list(out, 0, bytes.len());
                out.extend(bytes);
            }
            Item::Flags(flags) => {
                list(out, 7, flags.len());
                out.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The number of a type in files.
fn number(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 => Some(0),
        DType::F16 => Some(1),
        DType::BF16 => Some(30),
        other => quantised::file_number(other),
    }
}

/// Bytes of so many numbers in a file.
pub(super) fn bytes(dtype: DType, count: usize) -> u64 {
    match dtype {
        DType::F16 | DType::BF16 => 2 * count as u64,
        other if other.is_quantised() => (count / other.block() * quantised::file_block_bytes(other)) as u64,
        _ => 4 * count as u64,
    }
}

/// Numbers as a file has them.
pub(super) fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F16 => values.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
        other if other.is_quantised() => quantised::round_to_file(other, values),
        _ => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// A file about to be written.
pub(super) struct Layout {
    header: Vec<u8>,
    total: u64,
}

impl Layout {
    pub(super) fn new(entries: &[Entry], tensors: &[Out<'_>]) -> Result<Self> {
        let mut header = super::super::reader::MAGIC.to_vec();
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((entries.len() as u64).to_le_bytes());
        entries.iter().for_each(|entry| entry.put(&mut header));
        let mut offset = 0_u64;
        for tensor in tensors {
            let number = number(tensor.dtype);
            let number = number.ok_or_else(|| {
                Error::input(tensor.name.as_str(), format!("GGUF files hold no tensors of {}", tensor.dtype))
            })?;
            put_text(&mut header, &tensor.name);
            let dims = tensor.shape.dims();
            header.extend((dims.len() as u32).to_le_bytes());
            dims.iter().rev().for_each(|extent| header.extend((*extent as u64).to_le_bytes()));
            header.extend(number.to_le_bytes());
            header.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
        }
        header.resize((header.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
        let total = header.len() as u64 + offset;
        Ok(Self { header, total })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.total
    }

    pub(super) fn write_to(&self, writer: &mut dyn io::Write, tensors: &[Out<'_>]) -> io::Result<()> {
        writer.write_all(&self.header)?;
        for tensor in tensors {
            tensor.write_to(writer)?;
            let bytes = tensor.bytes();
            writer.write_all(&vec![0; (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize])?;
        }
        Ok(())
    }
}
