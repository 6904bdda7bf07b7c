//! Blocks of 256 with a scale for each stretch of 16 or 32 weights, and with a minimum or without: q2_k to q6_k.

use super::fit::{best_line, best_step};
use super::format::{Bits, Block, Format, MOST, Scales, half_at, put_half};
use super::plain::extreme;
use crate::dtype::DType;
use half::f16;

pub(super) const Q4_K: Format = Format {
    dtype: DType::Q4K,
    number: 12,
    bytes: 144,
    stretch: 32,
    low: Bits { at: 16, bits: 4, run: 32 },
    high: None,
    read_scales: read_minima,
    write_scales: write_minima,
    scales: Scales::WithMinima,
    step: f32::from,
    nearest: |values| nearest_with_minima(values, 32, 15.0, 63.0),
};

pub(super) const Q5_K: Format = Format {
    dtype: DType::Q5K,
    number: 13,
    bytes: 176,
    low: Bits { at: 48, bits: 4, run: 32 },
    high: Some(Bits { at: 16, bits: 1, run: 32 }),
    nearest: |values| nearest_with_minima(values, 32, 31.0, 63.0),
    ..Q4_K
};

pub(super) const Q2_K: Format = Format {
    dtype: DType::Q2K,
    number: 10,
    bytes: 84,
    stretch: 16,
    low: Bits { at: 16, bits: 2, run: 32 },
    read_scales: |bytes, block| {
        (block.d, block.e) = (half_at(bytes, 80), half_at(bytes, 82));
        for (j, byte) in bytes[..16].iter().enumerate() {
            (block.s[j], block.m[j]) = ((byte & 15).cast_signed(), byte >> 4);
        }
    },
    write_scales: |block, bytes| {
        put_half(bytes, 80, block.d);
        put_half(bytes, 82, block.e);
        for (byte, (s, m)) in bytes[..16].iter_mut().zip(block.s.iter().zip(block.m)) {
            *byte = s.cast_unsigned() | m << 4;
        }
    },
    scales: Scales::WithMinimaOf4Bits,
    nearest: |values| nearest_with_minima(values, 16, 3.0, 15.0),
    ..Q4_K
};

pub(super) const Q3_K: Format = Format {
    dtype: DType::Q3K,
    number: 11,
    bytes: 110,
    stretch: 16,
    low: Bits { at: 32, bits: 2, run: 32 },
    high: Some(Bits { at: 0, bits: 1, run: 32 }),
    // The low four bits of s in nibbles, the first eight in low ones; the high two of s j in byte j % 4, from the lowest on.
    read_scales: |bytes, block| {
        block.d = half_at(bytes, 108);
        for j in 0..16 {
            let (low, high) = (bytes[96 + j % 8] >> (j / 8 * 4) & 15, bytes[104 + j % 4] >> (j / 4 * 2) & 3);
            block.s[j] = (low | high << 4).cast_signed() - 32;
        }
    },
    write_scales: |block, bytes| {
        put_half(bytes, 108, block.d);
        for j in 0..16 {
            let s = (block.s[j] + 32).cast_unsigned();
            bytes[96 + j % 8] |= (s & 15) << (j / 8 * 4);
            bytes[104 + j % 4] |= (s >> 4 & 3) << (j / 4 * 2);
        }
    },
    scales: Scales::Signed,
    step: |q| f32::from(q) - 4.0,
    nearest: |values| nearest_signed(values, 4.0, 32.0),
};

pub(super) const Q6_K: Format = Format {
    dtype: DType::Q6K,
    number: 14,
    bytes: 210,
    low: Bits { at: 0, bits: 4, run: 64 },
    high: Some(Bits { at: 128, bits: 2, run: 32 }),
    read_scales: |bytes, block| {
        block.d = half_at(bytes, 208);
        for (s, byte) in block.s.iter_mut().zip(&bytes[192..208]) {
            *s = byte.cast_signed();
        }
    },
    write_scales: |block, bytes| {
        put_half(bytes, 208, block.d);
        for (byte, s) in bytes[192..208].iter_mut().zip(block.s) {
            *byte = s.cast_unsigned();
        }
    },
    step: |q| f32::from(q) - 32.0,
    nearest: |values| nearest_signed(values, 32.0, 128.0),
    ..Q3_K
};

/// d and e, then 8 s and 8 m of 6 bits: four bytes of the first s and four of the first m, whose two high bits are those of the last, and
/// four of the last s and m in halves.
fn read_minima(bytes: &[u8], block: &mut Block) {
    (block.d, block.e) = (half_at(bytes, 0), half_at(bytes, 2));
    for j in 0..4 {
        let [s, m, both] = [bytes[4 + j], bytes[8 + j], bytes[12 + j]];
        (block.s[j], block.m[j]) = ((s & 63).cast_signed(), m & 63);
        (block.s[4 + j], block.m[4 + j]) = ((both & 15 | s >> 6 << 4).cast_signed(), both >> 4 | m >> 6 << 4);
    }
}

fn write_minima(block: &Block, bytes: &mut [u8]) {
    put_half(bytes, 0, block.d);
    put_half(bytes, 2, block.e);
    for j in 0..4 {
        let ([s, last_s], [m, last_m]) =
            ([block.s[j], block.s[4 + j]].map(i8::cast_unsigned), [block.m[j], block.m[4 + j]]);
        bytes[4 + j] = s | last_s >> 4 << 6;
        bytes[8 + j] = m | last_m >> 4 << 6;
        bytes[12 + j] = last_s & 15 | last_m << 4;
    }
}

/// How many `unit`s a value is, from `least` to `most`; 0 if the unit is 0.
fn units(value: f64, unit: f32, [least, most]: [f64; 2]) -> f64 {
    if unit == 0.0 { 0.0 } else { (value / f64::from(unit)).round().clamp(least, most) }
}

/// Steps and minima of stretches as multiples of d and e, up to `most_units`; quants from 0 to `most`.
fn nearest_with_minima(values: &[f32], stretch: usize, most: f64, most_units: f64) -> Block {
    let lines: Vec<(f64, f64)> = values.chunks_exact(stretch).map(|values| best_line(values, most)).collect();
    let largest = lines.iter().fold((0.0_f64, 0.0_f64), |(s, m), line| (s.max(line.0), m.max(line.1)));
    let [d, e] = [largest.0, largest.1].map(|largest| f16::from_f64(largest / most_units).to_f32());
    let mut block = Block { d, e, ..Block::ZERO };
    for (j, (line, values)) in lines.iter().zip(values.chunks_exact(stretch)).enumerate() {
        let [s, m] = [units(line.0, d, [0.0, most_units]), units(line.1, e, [0.0, most_units])];
        (block.s[j], block.m[j]) = (s as i8, m as u8);
        let (step, minimum) = (f64::from(d) * s, f64::from(e) * m);
        for (quant, &x) in block.quants[j * stretch..].iter_mut().zip(values) {
            *quant = units(f64::from(x) + minimum, step as f32, [0.0, most]) as u8;
        }
    }
    block
}

/// Steps of stretches of 16 as multiples of d, from `-most_units` to `most_units - 1`; quants of `2 half` steps.
fn nearest_signed(values: &[f32], half: f64, most_units: f64) -> Block {
    let code = |x: f64| x.round().clamp(-half, half - 1.0);
    let steps: Vec<f32> = values
        .chunks_exact(16)
        .map(|values| {
            let e = f64::from(extreme(values));
            best_step(values, &[e / -half, e / (half - 1.0)], code) as f32
        })
        .collect();
    with_units(values, &steps, most_units, |x| (code(x) + half) as u8)
}

/// A block of stretches of these steps, as multiples of d from `-most_units` to `most_units - 1`; `quant` gives that of a weight over its step.
pub(super) fn with_units(values: &[f32], steps: &[f32], most_units: f64, quant: impl Fn(f64) -> u8) -> Block {
    // The largest step becomes the lowest multiple, of which there is one more.
    let d = f16::from_f64(f64::from(extreme(steps)) / -most_units).to_f32();
    let mut block = Block { d, ..Block::ZERO };
    let stretch = MOST / steps.len();
    for (j, (&step, values)) in steps.iter().zip(values.chunks_exact(stretch)).enumerate() {
        let s = units(f64::from(step), d, [-most_units, most_units - 1.0]);
        block.s[j] = s as i8;
        let step = f64::from(d) * s;
        for (at, &x) in block.quants[j * stretch..].iter_mut().zip(values) {
            *at = quant(if step == 0.0 { 0.0 } else { f64::from(x) / step });
        }
    }
    block
}
