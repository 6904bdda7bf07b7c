//! Element types in files ↔ element types on the GPU.

use crate::dtype::DType;
use crate::shape::TensorType;
use half::{bf16, f16};
use safetensors::Dtype;

/// Numbers of a file: little-endian, in one of the file's element types.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub(super) dtype: Dtype,
    pub(super) bytes: &'a [u8],
}

/// How the engine's types are called in files.
pub(super) fn file_type(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U32 => Dtype::U32,
        DType::I32 => Dtype::I32,
    }
}

/// Bytes of a tensor in a file, where nothing is padded.
pub(super) fn file_bytes(ty: &TensorType) -> usize {
    let size = match ty.dtype {
        DType::F32 | DType::U32 | DType::I32 => 4,
        DType::F16 | DType::BF16 => 2,
    };
    ty.shape.numel() * size
}

impl Numbers<'_> {
    /// Each element through `f`, `N` being its size in bytes.
    fn each<const N: usize, T>(&self, f: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks::<N>().0.iter().map(|&bytes| f(bytes)).collect()
    }

    pub(super) fn to_f32(self) -> Result<Vec<f32>, String> {
        Ok(match self.dtype {
            Dtype::F32 => self.each(f32::from_le_bytes),
            Dtype::F64 => self.each(|b| f64::from_le_bytes(b) as f32),
            Dtype::F16 => self.each(|b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.each(|b| bf16::from_le_bytes(b).to_f32()),
            Dtype::U64 => self.each(|b| u64::from_le_bytes(b) as f32),
            _ => self.signed()?.into_iter().map(|v| v as f32).collect(),
        })
    }

    /// All integer types but u64 as i64.
    fn signed(self) -> Result<Vec<i64>, String> {
        Ok(match self.dtype {
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

    /// The elements as i32 or u32; `name` says which in messages.
    pub(super) fn to_integers<T: TryFrom<i64> + TryFrom<u64>>(self, name: &str) -> Result<Vec<T>, String> {
        let too_large =
            |value: &dyn std::fmt::Display, index: usize| format!("element {index} is {value}, outside of {name}");
        match self.dtype {
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16 => {
                Err(format!("holds fractions ({:?}), integers were expected", self.dtype))
            }
            Dtype::U64 => {
                let values = self.each(u64::from_le_bytes).into_iter().enumerate();
                values.map(|(i, v)| T::try_from(v).map_err(|_| too_large(&v, i))).collect()
            }
            _ => {
                let values = self.signed()?.into_iter().enumerate();
                values.map(|(i, v)| T::try_from(v).map_err(|_| too_large(&v, i))).collect()
            }
        }
    }

    pub(super) fn to_words(self, dtype: DType) -> Result<Vec<u8>, String> {
        if file_type(dtype) == self.dtype {
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
        };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(dtype: Dtype, bytes: &[u8]) -> Numbers<'_> {
        Numbers { dtype, bytes }
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
    fn words_are_padded_and_rounded_to_nearest_even() {
        let ones: Vec<u8> =
            [1.0f32, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let words = numbers(Dtype::F32, &ones).to_words(DType::BF16).unwrap();
        assert_eq!(words, [0x80, 0x3f, 0x80, 0x3f, 0x82, 0x3f, 0, 0]);
        assert_eq!(numbers(Dtype::F16, &[0, 0x3e]).to_words(DType::F16).unwrap(), [0, 0x3e, 0, 0]);
        assert_eq!(numbers(Dtype::U8, &[7]).to_words(DType::U32).unwrap(), [7, 0, 0, 0]);
    }
}
