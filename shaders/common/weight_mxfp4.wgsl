// weight_mxfp4: weights of 4 bits, floats with two bits of exponent and one of mantissa, times d; a scale is d as f32.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_32

// Twice the floats i of words: 0 1 2 3 4 6 8 12 by their lower three bits, negated by the fourth.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f {
    let q = words >> (i * 4u);
    let size = vec4f((vec4u(0xc8643210u) >> ((q & vec4u(7u)) * 4u)) & vec4u(15u));
    return select(size, -size, (q & vec4u(8u)) != vec4u(0u));
}

// There are none.
fn high_bits(block: u32, word: u32) -> u32 { return 0u; }

// d and m of a block: a weight is d times its step, + m; and whether m is not always 0.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f { return vec2f(0.5 * bitcast<f32>(scales[block]), 0.0); }
