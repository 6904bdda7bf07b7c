//! Blocks of 32 with a scale, or with a scale and an offset: q8_0, q4_0, q4_1, q5_0, q5_1.

use super::format::{Bits, Block, Format, Scales, half_at, put_half};
use crate::dtype::DType;
use half::f16;

/// The nibbles of 32 weights: the first 16 in low halves of bytes.
pub(super) const fn nibbles(at: usize) -> Bits {
    Bits { at, bits: 4, run: 16 }
}

pub(super) fn read_d(bytes: &[u8], block: &mut Block) {
    block.d = half_at(bytes, 0);
}

pub(super) fn write_d(block: &Block, bytes: &mut [u8]) {
    put_half(bytes, 0, block.d);
}

fn read_pair(bytes: &[u8], block: &mut Block) {
    (block.d, block.e) = (half_at(bytes, 0), -half_at(bytes, 2));
}

fn write_pair(block: &Block, bytes: &mut [u8]) {
    put_half(bytes, 0, block.d);
    put_half(bytes, 2, -block.e);
}

pub(super) const Q8_0: Format = Format {
    dtype: DType::Q8_0,
    number: 8,
    bytes: 34,
    stretch: 32,
    low: Bits::in_order(2, 8),
    high: None,
    read_scales: read_d,
    write_scales: write_d,
    scales: Scales::One,
    step: |q| f32::from(q.cast_signed()),
    nearest: |values| nearest(values, f64::from(extreme(values).abs()) / 127.0, [-127.0, 127.0], 0.0),
};

pub(super) const Q4_0: Format = Format {
    dtype: DType::Q4_0,
    number: 2,
    bytes: 18,
    low: nibbles(2),
    step: |q| f32::from(q) - 8.0,
    nearest: |values| nearest(values, f64::from(extreme(values)) / -8.0, [-8.0, 7.0], 8.0),
    ..Q8_0
};

pub(super) const Q4_1: Format = Format {
    dtype: DType::Q4_1,
    number: 3,
    bytes: 20,
    low: nibbles(4),
    read_scales: read_pair,
    write_scales: write_pair,
    scales: Scales::Pair,
    step: f32::from,
    nearest: |values| nearest_with_offset(values, 15.0),
    ..Q8_0
};

pub(super) const Q5_0: Format = Format {
    dtype: DType::Q5_0,
    number: 6,
    bytes: 22,
    low: nibbles(6),
    high: Some(Bits::in_order(2, 1)),
    step: |q| f32::from(q) - 16.0,
    nearest: |values| nearest(values, f64::from(extreme(values)) / -16.0, [-16.0, 15.0], 16.0),
    ..Q8_0
};

pub(super) const Q5_1: Format = Format {
    dtype: DType::Q5_1,
    number: 7,
    bytes: 24,
    low: nibbles(8),
    high: Some(Bits::in_order(4, 1)),
    nearest: |values| nearest_with_offset(values, 31.0),
    ..Q4_1
};

/// The weight of the largest magnitude, the first of several.
pub(super) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |e: f32, &x| if x.abs() > e.abs() { x } else { e })
}

/// A block of the step d, as f16; quant `zero` stands for 0. Where the step is zero, all weights are too small for it.
fn nearest(values: &[f32], d: f64, [least, most]: [f64; 2], zero: f64) -> Block {
    let d = f16::from_f64(d).to_f32();
    let mut block = Block { d, ..Block::ZERO };
    for (quant, &x) in block.quants.iter_mut().zip(values) {
        let steps = if d == 0.0 { 0.0 } else { (f64::from(x) / f64::from(d)).round() };
        *quant = ((steps.clamp(least, most) + zero) as i16) as u8;
    }
    block
}

fn nearest_with_offset(values: &[f32], most: f64) -> Block {
    let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &x| (low.min(x), high.max(x)));
    let m = f16::from_f32(low).to_f32();
    let d = f16::from_f64((f64::from(high) - f64::from(m)).max(0.0) / most).to_f32();
    let mut block = Block { d, e: -m, ..Block::ZERO };
    for (quant, &x) in block.quants.iter_mut().zip(values) {
        let steps = if d == 0.0 { 0.0 } else { (f64::from(x) - f64::from(m)) / f64::from(d) };
        *quant = steps.round().clamp(0.0, most) as u8;
    }
    block
}
