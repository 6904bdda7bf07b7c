//! Element types in files ↔ element types on the GPU.

use crate::dtype::DType;
use crate::quantised;
use half::{bf16, f16};
use safetensors::Dtype;
use std::borrow::Cow;
use std::fmt;

/// The type of a tensor's elements in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileType {
    /// One number after the other.
    Plain(Dtype),
    /// Blocks of a quantised type, as in [`crate::quantised`].
    Blocks(DType),
    /// Blocks of a type that is not read.
    Other(OtherBlocks),
}

/// A quantised type that is known by its size only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherBlocks {
    /// The name.
    pub name: &'static str,
    /// Weights of a block.
    pub weights: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

/// The name in messages.
impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => write!(f, "{dtype:?}"),
            Self::Blocks(dtype) => dtype.fmt(f),
            Self::Other(other) => f.write_str(other.name),
        }
    }
}

impl FileType {
    /// Elements of a block; 1 for types without blocks.
    pub(super) fn block(self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Blocks(dtype) => dtype.block(),
            Self::Other(other) => other.weights,
        }
    }

    /// Bytes of that many elements; none if there is no such number, or blocks are not whole.
    pub(super) fn bytes(self, count: usize) -> Option<usize> {
        let blocks = count.is_multiple_of(self.block()).then_some(count / self.block())?;
        match self {
            Self::Plain(dtype) => count.checked_mul(dtype.bitsize())?.checked_add(7).map(|bits| bits / 8),
            Self::Blocks(dtype) => blocks.checked_mul(quantised::file_block_bytes(dtype)),
            Self::Other(other) => blocks.checked_mul(other.bytes),
        }
    }

    /// Whether the numbers are 32-bit integers.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self.same(), Some(DType::I32 | DType::U32))
    }

    /// The type in GPU memory that holds the same numbers, if there is one.
    #[must_use]
    pub fn same(self) -> Option<DType> {
        match self {
            Self::Plain(Dtype::F32) => Some(DType::F32),
            Self::Plain(Dtype::F16) => Some(DType::F16),
            Self::Plain(Dtype::BF16) => Some(DType::BF16),
            Self::Plain(Dtype::U32) => Some(DType::U32),
            Self::Plain(Dtype::I32) => Some(DType::I32),
            Self::Plain(_) | Self::Other(_) => None,
            Self::Blocks(dtype) => Some(dtype),
        }
    }
}

/// Numbers of a file: little-endian, in one of the file's element types.
#[derive(Clone)]
pub(super) struct Numbers<'a> {
    pub(super) dtype: FileType,
    /// The length of a row.
    pub(super) row_len: usize,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// The name of a type in safetensors files; quantised ones have none.
pub(super) fn file_type(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U32 => Dtype::U32,
        DType::I32 => Dtype::I32,
        _ => return None,
    })
}

/// Whole rows in another order: in each of `heads` stretches of rows, those of even numbers come first, then those of odd
/// numbers. So rows for rotary positions that rotate neighbours become rows for those that rotate the two halves of a head.
pub(super) fn halves_apart(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row, head) = (bytes.len() / rows.max(1), rows / heads.max(1));
    let numbers =
        (0..heads).flat_map(|h| (0..2).flat_map(move |odd| (0..head / 2).map(move |i| h * head + 2 * i + odd)));
    numbers.flat_map(|number| bytes[number * row..(number + 1) * row].iter().copied()).collect()
}

impl Numbers<'_> {
    /// Numbers in rows of that length.
    pub(super) fn of_f32(row_len: usize, values: impl Iterator<Item = f32>) -> Self {
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        Self { dtype: FileType::Plain(Dtype::F32), row_len, bytes: bytes.into() }
    }

    /// Each element through `f`, `N` being its size in bytes.
    fn each<const N: usize, T>(&self, f: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|&bytes| f(bytes)).collect()
    }

    pub(super) fn to_f32(&self) -> Result<Vec<f32>, String> {
        let plain = match self.dtype {
            FileType::Plain(plain) => plain,
            FileType::Blocks(dtype) => {
                return Ok(quantised::file_values(dtype, &self.bytes).into_iter().map(|x| x as f32).collect());
            }
            FileType::Other(other) => {
                let instead = "requantise the model to Q4_K_M (llama-quantize does), or give its F16 file";
                return Err(format!("has type {}, which is not read: {instead}", other.name));
            }
        };
        Ok(match plain {
            Dtype::F32 => self.each(f32::from_le_bytes),
            Dtype::F64 => self.each(|b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => self.each(|b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.each(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::U64 => self.each(|b| u64::from_le_bytes(b) as f32),
            _ => self.signed()?.into_iter().map(|v| v as f32).collect(),
        })
    }

    /// All integer types but u64 as i64.
    fn signed(&self) -> Result<Vec<i64>, String> {
        let FileType::Plain(plain) = self.dtype else { return Err(self.fractions()) };
        Ok(match plain {
            Dtype::BOOL => self.each(|[b]| i64::from(b != 0)),
            Dtype::U8 => self.each(|[b]| i64::from(b)),
            Dtype::I8 => self.each(|b| i64::from(i8::from_le_bytes(b))),
            Dtype::U16 => self.each(|b| i64::from(u16::from_le_bytes(b))),
            Dtype::I16 => self.each(|b| i64::from(i16::from_le_bytes(b))),
            Dtype::U32 => self.each(|b| i64::from(u32::from_le_bytes(b))),
            Dtype::I32 => self.each(|b| i64::from(i32::from_le_bytes(b))),
            Dtype::I64 => self.each(i64::from_le_bytes),
            other => {
                return Err(format!(
                    "elements of type {other:?} cannot be converted: convert the file to F32 or BF16 first"
                ));
            }
        })
    }

    fn fractions(&self) -> String {
        format!("holds fractions ({}), integers were expected", self.dtype)
    }

    /// The elements as i32 or u32; `name` says which in messages.
    pub(super) fn to_integers<T: TryFrom<i64> + TryFrom<u64>>(&self, name: &str) -> Result<Vec<T>, String> {
        let too_large =
            |value: &dyn fmt::Display, index: usize| format!("element {index} is {value}, outside of {name}");
        match self.dtype {
            FileType::Plain(Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) => Err(self.fractions()),
            FileType::Plain(Dtype::U64) => {
                let values = self.each(u64::from_le_bytes).into_iter().enumerate();
                values.map(|(i, v)| T::try_from(v).map_err(|_| too_large(&v, i))).collect()
            }
            _ => {
                let values = self.signed()?.into_iter().enumerate();
                values.map(|(i, v)| T::try_from(v).map_err(|_| too_large(&v, i))).collect()
            }
        }
    }

    pub(super) fn to_words(&self, dtype: DType) -> Result<Vec<u8>, String> {
        if !dtype.holds_rows_of(self.row_len) {
            return Err(format!(
                "its rows of {} are not whole blocks of {dtype}: store it as f16 or f32",
                self.row_len
            ));
        }
        if self.dtype.same() == Some(dtype) {
            if dtype.is_quantised() {
                return Ok(quantised::from_file(dtype, &self.bytes));
            }
            let mut bytes = self.bytes.to_vec();
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            return Ok(bytes);
        }
        let mut bytes: Vec<u8> = match dtype {
            DType::F32 => self.to_f32()?.into_iter().flat_map(f32::to_le_bytes).collect(),
            DType::F16 => self.to_f32()?.into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => self.to_f32()?.into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            DType::U32 => self.to_integers::<u32>("u32")?.into_iter().flat_map(u32::to_le_bytes).collect(),
            DType::I32 => self.to_integers::<i32>("i32")?.into_iter().flat_map(i32::to_le_bytes).collect(),
            _ => quantised::quantise(dtype, &self.to_f32()?),
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dtype: Dtype, bytes: &[u8]) -> Numbers<'_> {
        Numbers { dtype: FileType::Plain(dtype), row_len: 1, bytes: bytes.into() }
    }

    #[test]
    fn every_number_type_reads_as_f32() {
        let f64s: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(numbers(Dtype::F64, &f64s).to_f32().unwrap(), [1.5, -2.0]);
        // 1.5 and -2 in f16 and bf16.
        assert_eq!(numbers(Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0]).to_f32().unwrap(), [1.5, -2.0]);
        assert_eq!(numbers(Dtype::BF16, &[0xc0, 0x3f, 0x00, 0xc0]).to_f32().unwrap(), [1.5, -2.0]);
        assert_eq!(numbers(Dtype::I8, &[0xff, 3]).to_f32().unwrap(), [-1.0, 3.0]);
        assert_eq!(numbers(Dtype::U8, &[0xff, 3]).to_f32().unwrap(), [255.0, 3.0]);
        assert_eq!(numbers(Dtype::BOOL, &[1, 0]).to_f32().unwrap(), [1.0, 0.0]);
        assert_eq!(numbers(Dtype::I16, &[0xfe, 0xff]).to_f32().unwrap(), [-2.0]);
        assert_eq!(numbers(Dtype::I64, &(-7i64).to_le_bytes()).to_f32().unwrap(), [-7.0]);
        assert_eq!(numbers(Dtype::U64, &u64::MAX.to_le_bytes()).to_f32().unwrap(), [u64::MAX as f32]);
        assert!(numbers(Dtype::F8_E4M3, &[1]).to_f32().unwrap_err().contains("F8_E4M3"));
    }

    #[test]
    fn integers_are_exact_or_refused() {
        let labels: Vec<u8> = [-100i64, 50_000].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(numbers(Dtype::I64, &labels).to_integers::<i32>("i32").unwrap(), [-100, 50_000]);
        let message = numbers(Dtype::I64, &labels).to_integers::<u32>("u32").unwrap_err();
        assert_eq!(message, "element 0 is -100, outside of u32");
        let message = numbers(Dtype::U64, &u64::MAX.to_le_bytes()).to_integers::<u32>("u32").unwrap_err();
        assert!(message.contains("18446744073709551615"), "{message}");
        assert!(numbers(Dtype::F32, &[0; 4]).to_integers::<u32>("u32").unwrap_err().contains("fractions"));
    }

    #[test]
    fn rows_of_pairs_become_rows_of_halves() {
        let rows: Vec<u8> = (0..12).flat_map(|row| [row, row + 100]).collect();
        let order: Vec<u8> = halves_apart(&rows, 12, 2).as_chunks::<2>().0.iter().map(|row| row[0]).collect();
        assert_eq!(order, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn blocks_are_kept_or_made_and_never_broken() {
        let block: Vec<u8> = [0x00, 0x38].into_iter().chain(0..32).collect();
        let file = Numbers { dtype: FileType::Blocks(DType::Q8_0), row_len: 32, bytes: block.into() };
        let values: Vec<f32> = (0..32_u8).map(|i| 0.5 * f32::from(i)).collect();
        assert_eq!(file.to_f32().unwrap(), values);
        let words = file.to_words(DType::Q8_0).unwrap();
        assert_eq!(words[..32], (0..32).collect::<Vec<u8>>());
        assert_eq!(words[256..], 0.5_f32.to_le_bytes());
        assert_eq!(file.to_words(DType::F32).unwrap().len(), 128);
        assert!(file.to_integers::<u32>("u32").unwrap_err().contains("q8_0"));
        let ones: Vec<u8> = 1.0_f32.to_le_bytes().repeat(48);
        let short = Numbers { row_len: 48, ..numbers(Dtype::F32, &ones) };
        assert!(short.to_words(DType::Q4_0).unwrap_err().contains("not whole blocks of q4_0"));
        assert_eq!(FileType::Blocks(DType::Q4_1).bytes(64), Some(40));
        assert_eq!(FileType::Blocks(DType::Q4_1).bytes(65), None);
        assert_eq!(FileType::Blocks(DType::Q6K).bytes(512), Some(420));
        assert_eq!(FileType::Blocks(DType::Q6K).bytes(320), None);
    }

    #[test]
    fn words_are_padded_and_rounded_to_nearest_even() {
        let ones: Vec<u8> =
            [1.0f32, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let words = numbers(Dtype::F32, &ones).to_words(DType::BF16).unwrap();
        assert_eq!(words, [0x80, 0x3f, 0x80, 0x3f, 0x82, 0x3f, 0, 0]);
        assert_eq!(numbers(Dtype::F16, &[0, 0x3e]).to_words(DType::F16).unwrap(), [0, 0x3e, 0, 0]);
        assert_eq!(numbers(Dtype::U8, &[7]).to_words(DType::U32).unwrap(), [7, 0, 0, 0]);
    }
}
