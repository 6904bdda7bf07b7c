//! Quantised weights: blocks of 32 or 256 with scales, as GGUF files hold them and as they lie in GPU memory.
//!
//! | type | value | weights, bytes of a block in a file | its layout there | bytes in GPU memory |
//! |---|---|---|---|---|
//! | q8_0 | `d q` | 32, 34 | d f16, q i8 | 36 |
//! | q4_0 | `d (q - 8)` | 32, 18 | d f16, nibbles | 20 |
//! | q4_1 | `d q + m` | 32, 20 | d f16, m f16, nibbles | 20 |
//! | q5_0 | `d (q - 16)` | 32, 22 | d f16, 4 bytes of high bits, nibbles | 24 |
//! | q5_1 | `d q + m` | 32, 24 | d f16, m f16, 4 bytes of high bits, nibbles | 24 |
//! | q2_k | `d s q - e m` | 256, 84 | 16 × s and m in halves of a byte, 64 bytes of 2 bits, d f16, e f16 | 88 |
//! | q3_k | `d s (q - 4)` | 256, 110 | 32 bytes of high bits, 64 of 2 bits, 16 × s + 32 in 6 bits, d f16 | 116 |
//! | q4_k | `d s q - e m` | 256, 144 | d f16, e f16, 8 × s and m in 6 bits, nibbles | 152 |
//! | q5_k | `d s q - e m` | 256, 176 | d f16, e f16, 8 × s and m in 6 bits, 32 bytes of high bits, nibbles | 184 |
//! | q6_k | `d s (q - 32)` | 256, 210 | nibbles, 64 bytes of 2 high bits, 16 × s i8, d f16 | 212 |
//! | iq4_nl | `d T[q]` | 32, 18 | d f16, nibbles | 20 |
//! | iq4_xs | `d s T[q]` | 256, 136 | d f16, 8 × s + 32 in 6 bits, nibbles | 140 |
//! | mxfp4 | `d f` | 32, 17 | exponent of d, nibbles | 20 |
//!
//! T is −127 −104 −83 −65 −49 −35 −22 −10 1 13 25 38 53 69 89 113, and f an E2M1 float: 0 0.5 1 1.5 2 3 4 6, then the same negated.
//! s and m are of 256 / their number weights. In what order the bits of quants lie is said with each type.
//!
//! In GPU memory a tensor is the quants of all its blocks, zeros up to a multiple of 256 bytes, and the scales of all its
//! blocks: kernels bind the two apart, and read the quants four words at a time. A word of quants holds the low bits of weights that
//! follow each other, the first in the lowest: 4 of 8 bits, 8 of 4 bits, or (q2_k, q3_k) 16 of 2 bits. The scales of a block are d as f32 (GPUs may
//! take the smallest f16 for zero, and K-quants have such), e as f32, s and m as bytes, for q2_k both in one; for q4_1 and q5_1 d and m as
//! f16. The high bits of q3_k, q5_0, q5_1, q5_k and q6_k follow them, again from the lowest bits on.
//!
//! Weights are rounded to a type block by block, d, e and m to f16 before quants are computed, `x / step` to the nearest quant there is:
//!
//! * q8_0: `d = max |x| / 127`
//! * q4_0, q5_0: `d = -a / 8`, `-a / 16`, a being the weight of the largest magnitude
//! * q4_1, q5_1: `m = min x`, `d = (max x - m) / 15`, `/ 31`
//! * iq4_nl: the d of least squared error, found from `a / -127` and `a / 113` by four rounds of choosing quants for d and then d for quants
//! * mxfp4: `d = 2^(⌊log₂ |a|⌋ - 2)` or twice as much, whichever has the smaller squared error
//! * q3_k, q6_k, iq4_xs: the step of each s likewise (from `a / -4` and `a / 3`; `a / -32` and `a / 31`; as iq4_nl); the largest step is -32 d
//!   (q6_k: -128 d), and s the nearest multiple
//! * q2_k, q4_k, q5_k: for each s and m the line `step q - minimum` of least squared error, minimum at least 0, likewise, from
//!   `(max x - min(x, 0)) / most` and 0.8 of it; the largest step is 63 d, the largest minimum 63 e (q2_k: 15)

mod fit;
mod format;
mod plain;
mod stretches;
mod tables;
#[cfg(test)]
mod tests;

use crate::dtype::DType;
use format::{Block, Format};
use std::num::NonZero;

/// Weights that are worth a thread of their own to round them.
const PART: usize = 1 << 15;

/// The format of a quantised type.
fn format(dtype: DType) -> Option<&'static Format> {
    Some(match dtype {
        DType::Q8_0 => &plain::Q8_0,
        DType::Q4_0 => &plain::Q4_0,
        DType::Q4_1 => &plain::Q4_1,
        DType::Q5_0 => &plain::Q5_0,
        DType::Q5_1 => &plain::Q5_1,
        DType::Q2K => &stretches::Q2_K,
        DType::Q3K => &stretches::Q3_K,
        DType::Q4K => &stretches::Q4_K,
        DType::Q5K => &stretches::Q5_K,
        DType::Q6K => &stretches::Q6_K,
        DType::IQ4NL => &tables::IQ4_NL,
        DType::IQ4XS => &tables::IQ4_XS,
        DType::MXFP4 => &tables::MXFP4,
        DType::F32 | DType::F16 | DType::BF16 | DType::U32 | DType::I32 => return None,
    })
}

/// The quantised type that has that number in GGUF files.
#[must_use]
pub(crate) fn of_file_number(number: u32) -> Option<DType> {
    DType::QUANTISED.into_iter().find(|&dtype| file_number(dtype) == Some(number))
}

/// The number of a quantised type in GGUF files.
#[must_use]
pub fn file_number(dtype: DType) -> Option<u32> {
    format(dtype).map(|format| format.number)
}

/// Bytes of a block in a file; 0 for types without blocks.
#[must_use]
pub fn file_block_bytes(dtype: DType) -> usize {
    format(dtype).map_or(0, |format| format.bytes)
}

/// Weights rounded to a quantised type, as they lie in GPU memory. They are whole blocks.
#[must_use]
pub fn quantise(dtype: DType, values: &[f32]) -> Vec<u8> {
    from_file(dtype, &round_to_file(dtype, values))
}

/// Weights rounded to a quantised type, as a file has them. They are whole blocks; other types have none.
#[must_use]
pub fn round_to_file(dtype: DType, values: &[f32]) -> Vec<u8> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    round_on(dtype, values, cores.min(values.len() / PART))
}

/// The same on up to so many threads, each of which has its blocks: the bits do not depend on their number.
fn round_on(dtype: DType, values: &[f32], threads: usize) -> Vec<u8> {
    let Some(format) = format(dtype) else { return Vec::new() };
    let blocks = values.len() / dtype.block();
    let mut bytes = vec![0; blocks * format.bytes];
    let round = |values: &[f32], bytes: &mut [u8]| {
        let mut block = Vec::with_capacity(format.bytes);
        for (values, bytes) in values.chunks_exact(dtype.block()).zip(bytes.chunks_exact_mut(format.bytes)) {
            block.clear();
            format.write_file(&(format.nearest)(values), &mut block);
            bytes.copy_from_slice(&block);
        }
    };
    if threads <= 1 {
        round(values, &mut bytes);
        return bytes;
    }
    let share = blocks.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let parts = values.chunks(share * dtype.block()).zip(bytes.chunks_mut(share * format.bytes));
        for (values, bytes) in parts {
            scope.spawn(move || round(values, bytes));
        }
    });
    bytes
}

/// A file's blocks as they lie in GPU memory: the same quants and scales.
#[must_use]
pub fn from_file(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let Some(format) = format(dtype) else { return Vec::new() };
    let blocks = bytes.chunks_exact(format.bytes);
    let count = blocks.len() * dtype.block();
    let mut words = vec![0; dtype.bytes(count) as usize];
    let (quants, scales) = words.split_at_mut(dtype.first_scale(count) * 4);
    let places = quants.chunks_exact_mut(dtype.quant_words() * 4).zip(scales.chunks_exact_mut(dtype.scale_words() * 4));
    let mut block = Block::ZERO;
    for (bytes, (quants, scales)) in blocks.zip(places) {
        format.read_file(bytes, &mut block);
        format.write_words(&block, quants, scales);
    }
    words
}

/// `count` weights in GPU memory as the blocks of a file: the inverse of [`from_file`].
#[must_use]
pub(crate) fn to_file(dtype: DType, words: &[u8], count: usize) -> Vec<u8> {
    let Some(format) = format(dtype) else { return Vec::new() };
    let mut bytes = Vec::with_capacity(count / dtype.block() * format.bytes);
    blocks_of_words(format, words, count, |block| format.write_file(block, &mut bytes));
    bytes
}

/// The weights of a file's blocks, exactly.
#[must_use]
pub fn file_values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let Some(format) = format(dtype) else { return Vec::new() };
    let mut values = Vec::with_capacity(bytes.len() / format.bytes * dtype.block());
    let mut block = Block::ZERO;
    for bytes in bytes.chunks_exact(format.bytes) {
        format.read_file(bytes, &mut block);
        format.values(&block, |value| values.push(value));
    }
    values
}

/// `count` weights as they lie in GPU memory, exactly.
#[must_use]
pub fn dequantise(dtype: DType, words: &[u8], count: usize) -> Vec<f64> {
    let Some(format) = format(dtype) else { return Vec::new() };
    let mut values = Vec::with_capacity(count);
    blocks_of_words(format, words, count, |block| format.values(block, |value| values.push(value)));
    values
}

/// The first of a file's blocks whose scale is infinite, no number, or too large for weights that f32 can hold.
#[must_use]
pub(crate) fn bad_scale(dtype: DType, bytes: &[u8]) -> Option<usize> {
    let format = format(dtype)?;
    let mut block = Block::ZERO;
    bytes.chunks_exact(format.bytes).position(|bytes| !format.has_finite_scales(bytes, &mut block))
}

/// The blocks of `count` weights in GPU memory.
fn blocks_of_words(format: &Format, words: &[u8], count: usize, mut take: impl FnMut(&Block)) {
    let dtype = format.dtype;
    let (quants, scales) = words.split_at((dtype.first_scale(count) * 4).min(words.len()));
    let places = quants.chunks_exact(dtype.quant_words() * 4).zip(scales.chunks_exact(dtype.scale_words() * 4));
    let mut block = Block::ZERO;
    for (quants, scales) in places.take(count / dtype.block()) {
        format.read_words(quants, scales, &mut block);
        take(&block);
    }
}
