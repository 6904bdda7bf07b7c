//! Quantised weights: blocks of 32 with a scale, as files hold them and as they lie in GPU memory.
//!
//! | type | value | block in a file | block in GPU memory |
//! |---|---|---|---|
//! | q8_0 | `d q` | d f16, 32 × i8: 34 bytes | 8 words of quants, 1 of scale: 36 bytes |
//! | q4_0 | `d (q - 8)` | d f16, 16 bytes of nibbles: 18 bytes | 4 words of quants, 1 of scale: 20 bytes |
//! | q4_1 | `d q + m` | d f16, m f16, 16 bytes of nibbles: 20 bytes | 4 words of quants, 1 of scale: 20 bytes |
//!
//! Byte j of a file's nibbles holds weight j in its low half and weight j + 16 in its high half.
//!
//! In GPU memory a tensor is the quants of all its blocks, zeros up to a multiple of 256 bytes, and the scales of all its
//! blocks: kernels bind the two apart, and read the quants four words at a time. A word of quants holds weights that
//! follow each other, the first in the lowest bits: 4 of 8 bits or 8 of 4 bits. A word of scale is d as f32, for q4_1 d
//! and m as f16, d in the low half.

use crate::dtype::{BLOCK, DType};
use half::f16;

/// A block of weights, whatever its type. Where the type has no `m`, it is 0.
#[derive(Clone, Copy)]
struct Block {
    d: f16,
    m: f16,
    /// For q8_0 the bits of an i8.
    quants: [u8; BLOCK],
}

impl Block {
    /// Rounds weights to the nearest that the type can hold:
    ///
    /// * q8_0: `d = max |x| / 127`, `q = round(x / d)`
    /// * q4_0: `d = -e / 8`, e being the weight of the largest magnitude, `q = round(x / d) + 8`, at most 15
    /// * q4_1: `m = min x`, `d = (max x - m) / 15`, `q = round((x - m) / d)`
    ///
    /// d and m are rounded to f16 before the quants are computed.
    fn nearest(dtype: DType, values: &[f32]) -> Self {
        let values = || values.iter().map(|&x| f64::from(x));
        let extreme = values().fold(0.0_f64, |e, x| if x.abs() > e.abs() { x } else { e });
        let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
        let (d, m) = match dtype {
            DType::Q8_0 => (extreme.abs() / 127.0, 0.0),
            DType::Q4_0 => (-extreme / 8.0, 0.0),
            _ => {
                let m = f16::from_f64(low).to_f64();
                ((high - m).max(0.0) / 15.0, m)
            }
        };
        let (d, m) = (f16::from_f64(d), f16::from_f64(m));
        let mut quants = [0; BLOCK];
        for (quant, x) in quants.iter_mut().zip(values()) {
            // Where the scale is zero, all weights are too small for it.
            let steps = if d.to_f64() == 0.0 { 0.0 } else { ((x - m.to_f64()) / d.to_f64()).round() };
            *quant = match dtype {
                DType::Q8_0 => (steps.clamp(-127.0, 127.0) as i8).cast_unsigned(),
                DType::Q4_0 => (steps + 8.0).clamp(0.0, 15.0) as u8,
                _ => steps.clamp(0.0, 15.0) as u8,
            };
        }
        Self { d, m, quants }
    }

    /// From the bytes of a file's block.
    fn from_file(dtype: DType, bytes: &[u8]) -> Self {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let (m, start) = if dtype == DType::Q4_1 { (half(2), 4) } else { (f16::ZERO, 2) };
        let mut quants = [0; BLOCK];
        if dtype == DType::Q8_0 {
            quants.copy_from_slice(&bytes[start..start + BLOCK]);
        } else {
            for (j, byte) in bytes[start..start + BLOCK / 2].iter().enumerate() {
                (quants[j], quants[j + BLOCK / 2]) = (byte & 15, byte >> 4);
            }
        }
        Self { d: half(0), m, quants }
    }

    /// From its words in GPU memory.
    fn from_words(dtype: DType, quant_bytes: &[u8], scale: [u8; 4]) -> Self {
        let (d, m) = match dtype {
            DType::Q4_1 => (f16::from_le_bytes([scale[0], scale[1]]), f16::from_le_bytes([scale[2], scale[3]])),
            _ => (f16::from_f32(f32::from_le_bytes(scale)), f16::ZERO),
        };
        let mut quants = [0; BLOCK];
        if dtype == DType::Q8_0 {
            quants.copy_from_slice(quant_bytes);
        } else {
            for (pair, byte) in quants.chunks_exact_mut(2).zip(quant_bytes) {
                (pair[0], pair[1]) = (byte & 15, byte >> 4);
            }
        }
        Self { d, m, quants }
    }

    /// The bytes of the quants in GPU memory.
    fn push_quants(&self, dtype: DType, bytes: &mut Vec<u8>) {
        if dtype == DType::Q8_0 {
            bytes.extend(self.quants);
        } else {
            bytes.extend(self.quants.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
        }
    }

    /// The bytes of the scale in GPU memory.
    fn push_scale(&self, dtype: DType, bytes: &mut Vec<u8>) {
        if dtype == DType::Q4_1 {
            bytes.extend(self.d.to_le_bytes());
            bytes.extend(self.m.to_le_bytes());
        } else {
            bytes.extend(self.d.to_f32().to_le_bytes());
        }
    }

    /// The weights, exactly.
    fn values(self, dtype: DType) -> impl Iterator<Item = f64> {
        let (d, m) = (self.d.to_f64(), self.m.to_f64());
        self.quants.into_iter().map(move |q| match dtype {
            DType::Q8_0 => d * f64::from(q.cast_signed()),
            DType::Q4_0 => d * (f64::from(q) - 8.0),
            _ => d * f64::from(q) + m,
        })
    }
}

/// Bytes of a block in a file; 0 for types without blocks.
#[must_use]
pub fn file_block_bytes(dtype: DType) -> usize {
    match dtype {
        DType::Q8_0 => 34,
        DType::Q4_0 => 18,
        DType::Q4_1 => 20,
        _ => 0,
    }
}

/// Blocks as they lie in GPU memory.
fn lay_out(dtype: DType, blocks: impl Iterator<Item = Block>) -> Vec<u8> {
    let (mut bytes, mut scales) = (Vec::new(), Vec::new());
    for block in blocks {
        block.push_quants(dtype, &mut bytes);
        block.push_scale(dtype, &mut scales);
    }
    let count = scales.len() / 4 * BLOCK;
    bytes.resize(dtype.first_scale(count) * 4, 0);
    bytes.extend(scales);
    bytes
}

/// Weights rounded to a quantised type, as they lie in GPU memory. They are whole blocks.
#[must_use]
pub fn quantise(dtype: DType, values: &[f32]) -> Vec<u8> {
    lay_out(dtype, values.chunks_exact(BLOCK).map(|values| Block::nearest(dtype, values)))
}

/// A file's blocks as they lie in GPU memory: the same quants and scales.
#[must_use]
pub fn from_file(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let blocks = bytes.chunks_exact(file_block_bytes(dtype).max(1));
    lay_out(dtype, blocks.map(|bytes| Block::from_file(dtype, bytes)))
}

/// The weights of a file's blocks, exactly.
pub fn file_values(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    let blocks = bytes.chunks_exact(file_block_bytes(dtype).max(1));
    blocks.flat_map(move |bytes| Block::from_file(dtype, bytes).values(dtype))
}

/// The first of a file's blocks whose scale is infinite or no number.
#[must_use]
pub fn bad_scale(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let mut blocks = bytes.chunks_exact(file_block_bytes(dtype).max(1)).map(|bytes| Block::from_file(dtype, bytes));
    blocks.position(|block| !block.d.is_finite() || !block.m.is_finite())
}

/// `count` weights as they lie in GPU memory, exactly.
#[must_use]
pub fn dequantise(dtype: DType, bytes: &[u8], count: usize) -> Vec<f64> {
    let (quants, scales) = bytes.split_at((dtype.first_scale(count) * 4).min(bytes.len()));
    let quants = quants.chunks_exact((dtype.quant_words() * 4).max(1));
    let blocks = quants.zip(scales.as_chunks().0).take(count / BLOCK);
    blocks.flat_map(|(quants, &scale)| Block::from_words(dtype, quants, scale).values(dtype)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: [DType; 3] = [DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// Reproducible numbers from -1 to 1.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 12.9898).sin()).collect()
    }

    #[test]
    fn weights_are_rounded_to_the_nearest_step() {
        for (dtype, steps) in [(DType::Q8_0, 127.0), (DType::Q4_0, 8.0), (DType::Q4_1, 15.0)] {
            let values = numbers(5 * 96);
            let bytes = quantise(dtype, &values);
            assert_eq!(bytes.len() as u64, dtype.bytes(values.len()));
            for (block, got) in values.chunks(BLOCK).zip(dequantise(dtype, &bytes, values.len()).chunks(BLOCK)) {
                let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                let (low, high) = block.iter().fold((1.0_f32, -1.0_f32), |(l, h), &x| (l.min(x), h.max(x)));
                let range = if dtype == DType::Q4_1 { high - low } else { largest };
                // Half a step, and what f16 takes from scale and offset. The largest of the other sign is cut off in q4_0.
                let step = f64::from(range) / steps * (if dtype == DType::Q4_0 { 1.01 } else { 0.51 }) + 1e-3;
                for (x, y) in block.iter().zip(got) {
                    assert!((f64::from(*x) - y).abs() <= step, "{dtype}: {x} became {y}");
                }
            }
        }
    }

    #[test]
    fn what_is_quantised_stays_when_it_is_quantised_again() {
        for dtype in TYPES {
            let bytes = quantise(dtype, &numbers(7 * 64));
            let values: Vec<f32> = dequantise(dtype, &bytes, 7 * 64).iter().map(|&x| x as f32).collect();
            assert_eq!(quantise(dtype, &values), bytes, "{dtype}");
        }
    }

    #[test]
    fn blocks_of_equal_and_tiny_weights_are_finite() {
        for dtype in TYPES {
            for value in [0.0, 1.5, -2.0, 1e-12] {
                let bytes = quantise(dtype, &[value; 32]);
                for got in dequantise(dtype, &bytes, 32) {
                    assert!(
                        (got - f64::from(value)).abs() <= 1e-3 * f64::from(value.abs()) + 1e-9,
                        "{dtype} {value}: {got}"
                    );
                }
            }
        }
    }

    /// One block of each type, written out by hand.
    #[test]
    fn a_files_blocks_read_as_the_formulas_say() {
        let half = |x: f32| f16::from_f32(x).to_le_bytes();
        let eight: Vec<u8> = half(0.5).into_iter().chain((0..32_u8).map(|q| q.wrapping_sub(16))).collect();
        let expected: Vec<f64> = (0..32).map(|i| 0.5 * (f64::from(i) - 16.0)).collect();
        assert_eq!(file_values(DType::Q8_0, &eight).collect::<Vec<_>>(), expected);
        // Weight j is j % 16, in low halves, and 15 - j % 16, in high ones.
        let nibbles: Vec<u8> = (0..16_u8).map(|j| j | (15 - j) << 4).collect();
        let quant = |i: usize| if i < 16 { i as f64 } else { 31.0 - i as f64 };
        let four = [half(0.25).to_vec(), nibbles.clone()].concat();
        let expected: Vec<f64> = (0..32).map(|i| 0.25 * (quant(i) - 8.0)).collect();
        assert_eq!(file_values(DType::Q4_0, &four).collect::<Vec<_>>(), expected);
        let offset = [half(0.25).to_vec(), half(-3.0).to_vec(), nibbles].concat();
        let expected: Vec<f64> = (0..32).map(|i| 0.25 * quant(i) - 3.0).collect();
        assert_eq!(file_values(DType::Q4_1, &offset).collect::<Vec<_>>(), expected);
        for (dtype, block) in [(DType::Q8_0, eight), (DType::Q4_0, four), (DType::Q4_1, offset)] {
            let two = [block.clone(), block].concat();
            let bytes = from_file(dtype, &two);
            assert_eq!(dequantise(dtype, &bytes, 64), file_values(dtype, &two).collect::<Vec<_>>(), "{dtype}");
        }
    }

    #[test]
    fn a_tensor_is_its_quants_and_then_its_scales() {
        let values: Vec<f32> = (0..128).map(|i| (i % 16) as f32).collect();
        let bytes = quantise(DType::Q4_1, &values);
        let words: Vec<u32> = bytes.as_chunks().0.iter().map(|&w| u32::from_le_bytes(w)).collect();
        let (quants, scale) = ([0x7654_3210, 0xfedc_ba98].repeat(8), u32::from(f16::ONE.to_bits()));
        assert_eq!(words, [&quants[..], &[0; 48], &[scale; 4]].concat());
        assert_eq!(DType::Q4_1.first_scale(128), 64);
    }
}
