//! Blocks whose quants are entries of a table: iq4_nl, iq4_xs, mxfp4.

use super::fit::best_step;
use super::format::{Block, Format, Scales, half_at, put_half};
use super::plain::{extreme, nibbles, read_d, write_d};
use super::stretches::with_units;
use crate::dtype::DType;
use half::f16;

/// The steps of iq4_nl and iq4_xs.
const STEPS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// The middles between them.
const MIDDLES: [f64; 15] = {
    let mut middles = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        middles[i] = (STEPS[i] as f64 + STEPS[i + 1] as f64) / 2.0;
        i += 1;
    }
    middles
};
/// The steps of mxfp4, without the sign.
const FLOATS: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
/// The middles between them.
const FLOAT_MIDDLES: [f64; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
/// The largest power of two of [`FLOATS`] is 2 to this.
const LARGEST_POWER: i32 = 2;

pub(super) const IQ4_NL: Format = Format {
    dtype: DType::IQ4NL,
    number: 20,
    bytes: 18,
    stretch: 32,
    low: nibbles(2),
    high: None,
    read_scales: read_d,
    write_scales: write_d,
    scales: Scales::One,
    step: |q| f32::from(STEPS[usize::from(q) % 16]),
    nearest: |values| {
        let d = f16::from_f64(step_of(values)).to_f32();
        let mut block = Block { d, ..Block::ZERO };
        for (at, &x) in block.quants.iter_mut().zip(values) {
            *at = entry(if d == 0.0 { 0.0 } else { f64::from(x) / f64::from(d) });
        }
        block
    },
};

pub(super) const IQ4_XS: Format = Format {
    dtype: DType::IQ4XS,
    number: 23,
    bytes: 136,
    low: nibbles(8),
    // The high two bits of 8 s, the low four in halves of bytes.
    read_scales: |bytes, block| {
        block.d = half_at(bytes, 0);
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        for j in 0..8 {
            let low = bytes[4 + j / 2] >> (j % 2 * 4) & 15;
            block.s[j] = (low | (((high >> (2 * j)) & 3) << 4) as u8).cast_signed() - 32;
        }
    },
    write_scales: |block, bytes| {
        put_half(bytes, 0, block.d);
        for j in 0..8 {
            let s = (block.s[j] + 32).cast_unsigned();
            bytes[2 + j / 4] |= (s >> 4 & 3) << (j % 4 * 2);
            bytes[4 + j / 2] |= (s & 15) << (j % 2 * 4);
        }
    },
    scales: Scales::Signed,
    nearest: |values| {
        let steps: Vec<f32> = values.chunks_exact(32).map(|values| step_of(values) as f32).collect();
        with_units(values, &steps, 32.0, entry)
    },
    ..IQ4_NL
};

pub(super) const MXFP4: Format = Format {
    dtype: DType::MXFP4,
    number: 39,
    bytes: 17,
    low: nibbles(1),
    read_scales: |bytes, block| block.d = power(bytes[0]),
    write_scales: |block, bytes| bytes[0] = exponent(block.d),
    step: |q| if q & 8 == 0 { float(q) } else { -float(q) },
    nearest: |values| {
        let largest = f64::from(extreme(values).abs());
        if largest == 0.0 {
            return Block { d: power(0), ..Block::ZERO };
        }
        // The largest weight is at least the largest power, or, cut off in the first, between the last two steps.
        let lowest = largest.log2().floor() as i32 - LARGEST_POWER + 127;
        let [first, second] = [lowest, lowest + 1].map(|exponent| floats(values, exponent.clamp(0, 252) as u8));
        if second.1 < first.1 { second.0 } else { first.0 }
    },
    ..IQ4_NL
};

/// The entry nearest to a number.
fn entry(x: f64) -> u8 {
    MIDDLES.partition_point(|middle| x > *middle) as u8
}

/// The step of least squared error for the table.
fn step_of(values: &[f32]) -> f64 {
    let e = f64::from(extreme(values));
    let [first, last] = [STEPS[0], STEPS[15]].map(f64::from);
    best_step(values, &[e / first, e / last], |x| f64::from(STEPS[usize::from(entry(x))]))
}

fn float(q: u8) -> f32 {
    FLOATS[usize::from(q) % 8]
}

/// 2^(e - 127).
fn power(e: u8) -> f32 {
    // The smallest is below the normal numbers, whose exponents begin with 1.
    f32::from_bits(if e == 0 { 1 << 22 } else { u32::from(e) << 23 })
}

fn exponent(power: f32) -> u8 {
    (power.to_bits() >> 23) as u8
}

/// The block of that exponent, and its squared error.
fn floats(values: &[f32], exponent: u8) -> (Block, f64) {
    let mut block = Block { d: power(exponent), ..Block::ZERO };
    let mut error = 0.0;
    for (quant, &x) in block.quants.iter_mut().zip(values) {
        let size = f64::from(x.abs()) / f64::from(block.d);
        let q = FLOAT_MIDDLES.partition_point(|middle| size > *middle) as u8;
        error += (f64::from(block.d) * (size - f64::from(float(q)))).powi(2);
        *quant = q | u8::from(x < 0.0) << 3;
    }
    (block, error)
}
