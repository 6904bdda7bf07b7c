//! Quantised weights: blocks of 32 with a scale, as files hold them and as they lie in GPU memory.
//!
//! | type | value | block in a file | block in GPU memory |
//! |---|---|---|---|
//! | q8_0 | `d q` | d f16, 32 × i8: 34 bytes | 8 words of quants, 1 of scale: 36 bytes |
//! | q4_0 | `d (q - 8)` | d f16, 16 bytes of nibbles: 18 bytes | 4 words of quants, 1 of scale: 20 bytes |
//! | q4_1 | `d q + m` | d f16, m f16, 16 bytes of nibbles: 20 bytes | 4 words of quants, 1 of scale: 20 bytes |
//! | q6_k | `d s (q - 32)` | 256 weights: 128 bytes of low nibbles, 64 of two high bits, 16 × s i8, d f16: 210 bytes | 4 words of quants, 3 of scale: 28 bytes |
//!
//! Byte j of a file's nibbles holds weight j in its low half and weight j + 16 in its high half; in a block of 256, whose halves of
//! 128 have 64 bytes of nibbles each, weight j and weight j + 64 of the half. Byte j of 32 bytes of high bits holds those of weights
//! j, j + 32, j + 64 and j + 96 of the half, the first in the lowest bits. An s is of 16 weights.
//!
//! In GPU memory a tensor is the quants of all its blocks, zeros up to a multiple of 256 bytes, and the scales of all its
//! blocks: kernels bind the two apart, and read the quants four words at a time. A word of quants holds weights that
//! follow each other, the first in the lowest bits: 4 of 8 bits or 8 of 4 bits. A word of scale is d as f32, for q4_1 d
//! and m as f16, d in the low half. The three of q6_k are d as f16 and s of the block's two halves as i8, from the lowest bits on, and
//! the two high bits of the first 16 weights, and of the others.

use crate::dtype::{BLOCK, DType};
use half::f16;

/// Weights that share an s.
const HALF: usize = BLOCK / 2;

/// A block of weights of any type. `m` is 0 where the type has none.
#[derive(Clone, Copy)]
struct Block {
    d: f16,
    m: f16,
    /// Of q6_k; 1 for other types.
    s: [i8; 2],
    /// For q8_0 the bits of an i8.
    quants: [u8; BLOCK],
}

impl Block {
    /// Rounds weights to the nearest that the type can hold:
    ///
    /// * q8_0: `d = max |x| / 127`, `q = round(x / d)`
    /// * q4_0: `d = -e / 8`, e being the weight of the largest magnitude, `q = round(x / d) + 8`, at most 15
    /// * q4_1: `m = min x`, `d = (max x - m) / 15`, `q = round((x - m) / d)`
    /// * q6_k: `d = max |x| / 2048`, s the smallest power of two by which 31 steps hold the half's weights, up to 64, of the sign
    ///   opposite to e's, `q = round(x / (d s)) + 32`, at most 63
    ///
    /// d and m are rounded to f16 before the quants are computed.
    fn nearest(dtype: DType, values: &[f32]) -> Self {
        let extreme = |values: &[f32]| {
            values.iter().fold(0.0_f64, |e, &x| if f64::from(x.abs()) > e.abs() { x.into() } else { e })
        };
        let largest = extreme(values);
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x.into()), h.max(x.into())));
        let (d, m) = match dtype {
            DType::Q8_0 => (largest.abs() / 127.0, 0.0),
            DType::Q4_0 => (-largest / 8.0, 0.0),
            DType::Q6K => (largest.abs() / 2048.0, 0.0),
            _ => {
                let m = f16::from_f64(low).to_f64();
                ((high - m).max(0.0) / 15.0, m)
            }
        };
        let (d, m) = (f16::from_f64(d), f16::from_f64(m));
        let half_step = |values: &[f32]| {
            let e = extreme(values);
            let enough = |s: &i8| 31.0 * d.to_f64() * f64::from(*s) >= e.abs();
            let s = (0..6).map(|bits| 1_i8 << bits).find(enough).unwrap_or(64);
            if e > 0.0 { -s } else { s }
        };
        let s = match dtype {
            DType::Q6K => [half_step(&values[..HALF]), half_step(&values[HALF..])],
            _ => [1; 2],
        };
        let mut quants = [0; BLOCK];
        for (i, (quant, &x)) in quants.iter_mut().zip(values).enumerate() {
            // Where the scale is zero, all weights are too small for it.
            let step = d.to_f64() * f64::from(s[i / HALF]);
            let steps = if step == 0.0 { 0.0 } else { ((f64::from(x) - m.to_f64()) / step).round() };
            *quant = match dtype {
                DType::Q8_0 => (steps.clamp(-127.0, 127.0) as i8).cast_unsigned(),
                DType::Q4_0 => (steps + 8.0).clamp(0.0, 15.0) as u8,
                DType::Q6K => (steps + 32.0).clamp(0.0, 63.0) as u8,
                _ => steps.clamp(0.0, 15.0) as u8,
            };
        }
        Self { d, m, s, quants }
    }

    /// From the bytes of a file's block: its blocks of 32, by number.
    fn from_file(dtype: DType, bytes: &[u8], number: usize) -> Self {
        let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut quants = [0; BLOCK];
        if dtype == DType::Q6K {
            let (side, quarter) = (number / 4, number % 4);
            let (low, high) = (&bytes[64 * side + 32 * (quarter % 2)..], &bytes[128 + 32 * side..]);
            for (quant, (low, high)) in quants.iter_mut().zip(low.iter().zip(high)) {
                *quant = (low >> (4 * (quarter / 2)) & 15) | (high >> (2 * quarter) & 3) << 4;
            }
            let s = [0, 1].map(|i| bytes[192 + 2 * number + i].cast_signed());
            return Self { d: half(208), m: f16::ZERO, s, quants };
        }
        let (m, start) = if dtype == DType::Q4_1 { (half(2), 4) } else { (f16::ZERO, 2) };
        if dtype == DType::Q8_0 {
            quants.copy_from_slice(&bytes[start..start + BLOCK]);
        } else {
            for (j, byte) in bytes[start..start + BLOCK / 2].iter().enumerate() {
                (quants[j], quants[j + BLOCK / 2]) = (byte & 15, byte >> 4);
            }
        }
        Self { d: half(0), m, s: [1; 2], quants }
    }

    /// From its words in GPU memory.
    fn from_words(dtype: DType, quant_bytes: &[u8], scale: &[u8]) -> Self {
        let half = |at: usize| f16::from_le_bytes([scale[at], scale[at + 1]]);
        let (d, m) = match dtype {
            DType::Q4_1 => (half(0), half(2)),
            DType::Q6K => (half(0), f16::ZERO),
            _ => (f16::from_f32(f32::from_le_bytes([scale[0], scale[1], scale[2], scale[3]])), f16::ZERO),
        };
        let mut quants = [0; BLOCK];
        if dtype == DType::Q8_0 {
            quants.copy_from_slice(quant_bytes);
        } else {
            for (pair, byte) in quants.chunks_exact_mut(2).zip(quant_bytes) {
                (pair[0], pair[1]) = (byte & 15, byte >> 4);
            }
        }
        let mut s = [1; 2];
        if dtype == DType::Q6K {
            s = [scale[2].cast_signed(), scale[3].cast_signed()];
            for (i, quant) in quants.iter_mut().enumerate() {
                *quant |= (scale[4 + i / 4] >> (2 * (i % 4)) & 3) << 4;
            }
        }
        Self { d, m, s, quants }
    }

    /// The bytes of the quants in GPU memory.
    fn push_quants(&self, dtype: DType, bytes: &mut Vec<u8>) {
        if dtype == DType::Q8_0 {
            bytes.extend(self.quants);
        } else {
            bytes.extend(self.quants.as_chunks::<2>().0.iter().map(|[low, high]| low & 15 | high << 4));
        }
    }

    /// The bytes of the scale in GPU memory.
    fn push_scale(&self, dtype: DType, bytes: &mut Vec<u8>) {
        match dtype {
            DType::Q4_1 => {
                bytes.extend(self.d.to_le_bytes());
                bytes.extend(self.m.to_le_bytes());
            }
            DType::Q6K => {
                bytes.extend(self.d.to_le_bytes());
                bytes.extend(self.s.map(i8::cast_unsigned));
                let high = self.quants.as_chunks::<4>().0.iter();
                bytes.extend(high.map(|[a, b, c, d]| a >> 4 | b >> 4 << 2 | c >> 4 << 4 | d >> 4 << 6));
            }
            _ => bytes.extend(self.d.to_f32().to_le_bytes()),
        }
    }

    /// The weights, exactly.
    fn values(self, dtype: DType) -> impl Iterator<Item = f64> {
        let (d, m) = (self.d.to_f64(), self.m.to_f64());
        self.quants.into_iter().enumerate().map(move |(i, q)| match dtype {
            DType::Q8_0 => d * f64::from(q.cast_signed()),
            DType::Q4_0 => d * (f64::from(q) - 8.0),
            DType::Q6K => d * f64::from(self.s[i / HALF]) * (f64::from(q) - 32.0),
            _ => d * f64::from(q) + m,
        })
    }
}

/// Weights of a block in a file; 1 for types without blocks.
#[must_use]
pub fn file_block(dtype: DType) -> usize {
    match dtype {
        DType::Q8_0 | DType::Q4_0 | DType::Q4_1 => BLOCK,
        DType::Q6K => 256,
        _ => 1,
    }
}

/// Bytes of a block in a file; 0 for types without blocks.
#[must_use]
pub fn file_block_bytes(dtype: DType) -> usize {
    match dtype {
        DType::Q8_0 => 34,
        DType::Q4_0 => 18,
        DType::Q4_1 => 20,
        DType::Q6K => 210,
        _ => 0,
    }
}

/// The blocks of 32 of a file's blocks.
fn file_blocks(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = Block> + '_ {
    let blocks = bytes.chunks_exact(file_block_bytes(dtype).max(1));
    blocks
        .flat_map(move |bytes| (0..file_block(dtype) / BLOCK).map(move |number| Block::from_file(dtype, bytes, number)))
}

/// Blocks as they lie in GPU memory.
fn lay_out(dtype: DType, blocks: impl Iterator<Item = Block>) -> Vec<u8> {
    let (mut bytes, mut scales) = (Vec::new(), Vec::new());
    for block in blocks {
        block.push_quants(dtype, &mut bytes);
        block.push_scale(dtype, &mut scales);
    }
    let count = scales.len() / (4 * dtype.scale_words()).max(1) * BLOCK;
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
    lay_out(dtype, file_blocks(dtype, bytes))
}

/// The weights of a file's blocks, exactly.
pub fn file_values(dtype: DType, bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    file_blocks(dtype, bytes).flat_map(move |block| block.values(dtype))
}

/// The first of a file's blocks whose scale is infinite or no number.
#[must_use]
pub fn bad_scale(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let block = file_blocks(dtype, bytes).position(|block| !block.d.is_finite() || !block.m.is_finite());
    block.map(|number| number * BLOCK / file_block(dtype))
}

/// `count` weights as they lie in GPU memory, exactly.
#[must_use]
pub fn dequantise(dtype: DType, bytes: &[u8], count: usize) -> Vec<f64> {
    let (quants, scales) = bytes.split_at((dtype.first_scale(count) * 4).min(bytes.len()));
    let quants = quants.chunks_exact((dtype.quant_words() * 4).max(1));
    let scales = scales.chunks_exact((dtype.scale_words() * 4).max(1));
    let blocks = quants.zip(scales).take(count / BLOCK);
    blocks.flat_map(|(quants, scale)| Block::from_words(dtype, quants, scale).values(dtype)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reproducible numbers from -1 to 1.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * 12.9898).sin()).collect()
    }

    #[test]
    fn weights_are_rounded_to_the_nearest_step() {
        for (dtype, steps) in [(DType::Q8_0, 127.0), (DType::Q4_0, 8.0), (DType::Q4_1, 15.0), (DType::Q6K, 31.5)] {
            let values = numbers(5 * 96);
            let bytes = quantise(dtype, &values);
            assert_eq!(bytes.len() as u64, dtype.bytes(values.len()));
            for (block, got) in values.chunks(BLOCK).zip(dequantise(dtype, &bytes, values.len()).chunks(BLOCK)) {
                let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                let (low, high) = block.iter().fold((1.0_f32, -1.0_f32), |(l, h), &x| (l.min(x), h.max(x)));
                let range = if dtype == DType::Q4_1 { high - low } else { largest };
                // Half a step, and what f16 takes from scale and offset. The largest of the other sign is cut off in q4_0 and q6_k.
                let step = f64::from(range) / steps
                    * (if matches!(dtype, DType::Q4_0 | DType::Q6K) { 1.01 } else { 0.51 })
                    + 1e-3;
                for (x, y) in block.iter().zip(got) {
                    assert!((f64::from(*x) - y).abs() <= step, "{dtype}: {x} became {y}");
                }
            }
        }
    }

    #[test]
    fn what_is_quantised_stays_when_it_is_quantised_again() {
        const COUNT: usize = 40_000 * BLOCK;
        for dtype in DType::QUANTISED {
            let bytes = quantise(dtype, &numbers(COUNT));
            let values: Vec<f32> = dequantise(dtype, &bytes, COUNT).iter().map(|&x| x as f32).collect();
            let again = quantise(dtype, &values);
            let same: Vec<f32> = dequantise(dtype, &again, COUNT).iter().map(|&x| x as f32).collect();
            assert_eq!(same, values, "{dtype}");
            // A half of q6_k whose weights reach as far to both sides may be held with the other sign.
            assert!(again == bytes || dtype == DType::Q6K, "{dtype}");
        }
    }

    #[test]
    fn blocks_of_equal_and_tiny_weights_are_finite() {
        for dtype in DType::QUANTISED {
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

    /// What llama.cpp's quantiser and random bits made, and the values that `gguf` 0.19 reads of it.
    #[test]
    fn blocks_of_256_read_as_others_read_them() {
        let bytes = include_bytes!("../tests/cases/q6_k_blocks.bin");
        let expected =
            include_bytes!("../tests/cases/q6_k_values.bin").as_chunks().0.iter().map(|&x| f32::from_le_bytes(x));
        let expected: Vec<f32> = expected.collect();
        let values: Vec<f32> = file_values(DType::Q6K, bytes).map(|x| x as f32).collect();
        assert_eq!((values.len(), values.len() % 256), (expected.len(), 0));
        assert_eq!(values, expected);
        let words = from_file(DType::Q6K, bytes);
        assert_eq!(words.len() as u64, DType::Q6K.bytes(expected.len()));
        let again: Vec<f32> = dequantise(DType::Q6K, &words, expected.len()).iter().map(|&x| x as f32).collect();
        assert_eq!(again, expected);
        assert_eq!(bad_scale(DType::Q6K, bytes), None);
        let mut broken = bytes.to_vec();
        broken[3 * 210 + 208..3 * 210 + 210].copy_from_slice(&f16::NAN.to_le_bytes());
        assert_eq!(bad_scale(DType::Q6K, &broken), Some(3));
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
