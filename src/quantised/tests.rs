use super::*;
use crate::dtype::BLOCK;
use half::f16;

/// Reproducible numbers from -1 to 1.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 12.9898).sin()).collect()
}

/// About normal numbers, as weights are.
fn weights(count: usize) -> Vec<f32> {
    let part = |i: usize, k: f64| (i as f64 * k).sin();
    (0..count).map(|i| 0.02 * (part(i, 12.9898) + part(i, 78.233) + part(i, 37.719) + part(i, 4.1414)) as f32).collect()
}

fn to_f32(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

#[test]
fn the_sizes_of_formats_are_those_of_the_types() {
    for dtype in DType::QUANTISED {
        let format = format(dtype).unwrap();
        assert_eq!((format.dtype, of_file_number(format.number)), (dtype, Some(dtype)));
        assert_eq!(format.low.bits as usize * dtype.block(), 32 * dtype.quant_words(), "{dtype}");
        let high = format.high.map_or(0, |high| high.bits as usize * dtype.block());
        assert_eq!(8 * format.scale_bytes() + high, 32 * dtype.scale_words(), "{dtype}");
    }
    assert_eq!((file_number(DType::F16), of_file_number(1), file_block_bytes(DType::F32)), (None, None, 0));
}

#[test]
fn threads_round_to_the_same_bits_as_one() {
    for dtype in DType::QUANTISED {
        for blocks in [1, 2, 5, 64] {
            let values = weights(blocks * dtype.block());
            let one = round_on(dtype, &values, 1);
            assert_eq!(one.len(), blocks * file_block_bytes(dtype));
            for threads in [0, 2, 3, 7, 100] {
                assert!(round_on(dtype, &values, threads) == one, "{dtype}: {blocks} blocks on {threads} threads");
            }
            assert!(round_to_file(dtype, &values) == one, "{dtype}");
        }
    }
    // Enough for threads.
    let values = weights(5 * PART + 256);
    assert!(round_to_file(DType::Q4K, &values) == round_on(DType::Q4K, &values, 1));
}

#[test]
fn weights_are_rounded_to_the_nearest_step() {
    for (dtype, steps) in [
        (DType::Q8_0, 127.0),
        (DType::Q4_0, 8.0),
        (DType::Q4_1, 15.0),
        (DType::Q5_0, 16.0),
        (DType::Q5_1, 31.0),
        (DType::Q6K, 31.0),
        (DType::Q3K, 3.5),
    ] {
        let values = numbers(5 * 256);
        let bytes = quantise(dtype, &values);
        assert_eq!(bytes.len() as u64, dtype.bytes(values.len()));
        for (block, got) in values.chunks(BLOCK).zip(dequantise(dtype, &bytes, values.len()).chunks(BLOCK)) {
            let largest = block.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            let (low, high) = block.iter().fold((1.0_f32, -1.0_f32), |(l, h), &x| (l.min(x), h.max(x)));
            let range = if matches!(dtype, DType::Q4_1 | DType::Q5_1) { high - low } else { largest };
            // Half a step, and what f16 takes from scale and offset. The largest of the other sign is cut off where there is one step less.
            let nearest = matches!(dtype, DType::Q8_0 | DType::Q4_1 | DType::Q5_1);
            let step = f64::from(range) / steps * (if nearest { 0.51 } else { 1.01 }) + 1e-3;
            for (x, y) in block.iter().zip(got) {
                assert!((f64::from(*x) - y).abs() <= step, "{dtype}: {x} became {y}");
            }
        }
    }
}

/// The root of the mean squared error over that of the weights.
fn error(dtype: DType, values: &[f32]) -> f64 {
    let got = file_values(dtype, &round_to_file(dtype, values));
    let square: f64 = values.iter().map(|&x| f64::from(x).powi(2)).sum();
    let error: f64 = values.iter().zip(got).map(|(&x, y)| (f64::from(x) - y).powi(2)).sum();
    (error / square).sqrt()
}

#[test]
fn fewer_bits_lose_more() {
    let expected = [
        (DType::Q8_0, 0.005),
        (DType::Q6K, 0.017),
        (DType::Q5K, 0.032),
        (DType::Q5_1, 0.033),
        (DType::Q5_0, 0.040),
        (DType::Q4K, 0.063),
        (DType::Q4_1, 0.067),
        (DType::IQ4NL, 0.072),
        (DType::IQ4XS, 0.072),
        (DType::Q4_0, 0.081),
        (DType::MXFP4, 0.11),
        (DType::Q3K, 0.14),
        (DType::Q2K, 0.24),
    ];
    let values = weights(1000 * 256);
    for (dtype, expected) in expected {
        let error = error(dtype, &values);
        assert!((error / expected - 1.0).abs() <= 0.04, "{dtype}: {error:.4}");
    }
    assert_eq!(expected.len(), DType::QUANTISED.len());
}

#[test]
fn what_is_quantised_stays_when_it_is_quantised_again() {
    const COUNT: usize = 1000 * 256;
    for dtype in DType::QUANTISED {
        let again = |values: &[f32]| to_f32(&dequantise(dtype, &quantise(dtype, values), COUNT));
        let once = again(&numbers(COUNT));
        let twice = again(&once);
        // A step or a line that is searched for may come out a little better.
        let changed = once.chunks(256).zip(twice.chunks(256)).filter(|(once, twice)| once != twice).count();
        let searched = matches!(dtype, DType::Q2K | DType::Q3K | DType::Q4K | DType::Q5K | DType::Q6K);
        assert!(changed <= if searched { 400 } else { 0 }, "{dtype}: {changed} of 1000 blocks changed");
    }
}

#[test]
fn blocks_of_equal_and_tiny_weights_are_finite() {
    for dtype in DType::QUANTISED {
        for value in [0.0, 1.5, -2.0, 1e-12, f32::MIN_POSITIVE / 8.0] {
            let bytes = quantise(dtype, &[value; 256]);
            for got in dequantise(dtype, &bytes, 256) {
                let error = (got - f64::from(value)).abs();
                assert!(error <= 6e-3 * f64::from(value.abs()) + 1e-9, "{dtype} {value}: {got}");
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
    assert_eq!(file_values(DType::Q8_0, &eight), expected);
    // Weight j is j % 16, in low halves, and 15 - j % 16, in high ones.
    let nibbles: Vec<u8> = (0..16_u8).map(|j| j | (15 - j) << 4).collect();
    let quant = |i: usize| if i < 16 { i as f64 } else { 31.0 - i as f64 };
    let four = [half(0.25).to_vec(), nibbles.clone()].concat();
    let expected: Vec<f64> = (0..32).map(|i| 0.25 * (quant(i) - 8.0)).collect();
    assert_eq!(file_values(DType::Q4_0, &four), expected);
    let offset = [half(0.25).to_vec(), half(-3.0).to_vec(), nibbles.clone()].concat();
    let expected: Vec<f64> = (0..32).map(|i| 0.25 * quant(i) - 3.0).collect();
    assert_eq!(file_values(DType::Q4_1, &offset), expected);
    // The smallest power of two is below the normal numbers of f32.
    let floats = [vec![0], nibbles].concat();
    let expected = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0].map(|x| x * 2_f64.powi(-127));
    assert_eq!(file_values(DType::MXFP4, &floats)[..8], expected);
    for (dtype, block) in [(DType::Q8_0, eight), (DType::Q4_0, four), (DType::Q4_1, offset), (DType::MXFP4, floats)] {
        let two = [block.clone(), block].concat();
        let bytes = from_file(dtype, &two);
        assert_eq!(dequantise(dtype, &bytes, 64), file_values(dtype, &two), "{dtype}");
        assert_eq!(to_file(dtype, &bytes, 64), two, "{dtype}");
    }
}

#[test]
fn a_tensor_is_its_quants_and_then_its_scales() {
    let words = |dtype, values: &[f32]| -> Vec<u32> {
        quantise(dtype, values).as_chunks().0.iter().map(|&w| u32::from_le_bytes(w)).collect()
    };
    let values: Vec<f32> = (0..128).map(|i| (i % 16) as f32).collect();
    let (quants, scale) = ([0x7654_3210, 0xfedc_ba98].repeat(8), u32::from(f16::ONE.to_bits()));
    assert_eq!(words(DType::Q4_1, &values), [&quants[..], &[0; 48], &[scale; 4]].concat());
    assert_eq!(DType::Q4_1.first_scale(128), 64);
    // 16 weights a word, then d, e, and s and m of 16 weights in a byte.
    let values: Vec<f32> = (0..256).map(|i| 15.0 * (i % 4) as f32).collect();
    let expected = [&[0xe4e4_e4e4; 16][..], &[0; 48], &[1.0_f32.to_bits(), 0], &[0x0f0f_0f0f; 4]].concat();
    assert_eq!(words(DType::Q2K, &values), expected);
}

#[test]
fn scales_that_are_no_numbers_are_found() {
    for dtype in DType::QUANTISED {
        let mut bytes = round_to_file(dtype, &numbers(4 * dtype.block()));
        assert_eq!(bad_scale(dtype, &bytes), None, "{dtype}");
        let start = 2 * file_block_bytes(dtype);
        let at = match dtype {
            DType::Q2K => 80,
            DType::Q3K => 108,
            DType::Q6K => 208,
            _ => 0,
        };
        bytes[start + at..start + at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        if dtype == DType::MXFP4 {
            bytes[start] = 254;
        }
        assert_eq!(bad_scale(dtype, &bytes), Some(2), "{dtype}");
    }
}
