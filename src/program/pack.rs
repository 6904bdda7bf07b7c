//! Packs numbers into the bytes of GPU memory, and unpacks them.

use crate::dtype::DType;
use crate::quantised;
use half::{bf16, f16};

/// The bytes of values in GPU memory: little-endian, 16-bit types in pairs, padded to whole words, quantised types in blocks.
#[must_use]
pub fn pack(values: &[f64], dtype: DType) -> Vec<u8> {
    let mut bytes: Vec<u8> = match dtype {
        DType::F32 => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        DType::U32 => values.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        DType::I32 => values.iter().flat_map(|&x| (x as i32).to_le_bytes()).collect(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(x as f32).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x as f32).to_le_bytes()).collect(),
        _ => {
            let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
            quantised::quantise(dtype, &values)
        }
    };
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The first `count` numbers of bytes of GPU memory; for a quantised type `count` must be the whole tensor.
#[must_use]
pub fn unpack(bytes: &[u8], dtype: DType, count: usize) -> Vec<f64> {
    let words = bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]);
    let halves = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]]));
    match dtype {
        DType::F32 => words.map(|w| f64::from(f32::from_le_bytes(w))).take(count).collect(),
        DType::U32 => words.map(|w| f64::from(u32::from_le_bytes(w))).take(count).collect(),
        DType::I32 => words.map(|w| f64::from(i32::from_le_bytes(w))).take(count).collect(),
        DType::F16 => halves.map(|h| f16::from_bits(h).to_f64()).take(count).collect(),
        DType::BF16 => halves.map(|h| bf16::from_bits(h).to_f64()).take(count).collect(),
        _ => quantised::dequantise(dtype, bytes, count),
    }
}
