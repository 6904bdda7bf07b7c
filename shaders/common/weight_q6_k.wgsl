// weight_q6_k: quantised weights d s (q - 32). A word of quants is the low four bits of eight; a block's three words of scale are
// d as f16 with s of its two halves as i8 behind it, then the high two bits of the first and of the second 16 weights.
//
// needs  scales (matmul_b_blocks, table_blocks)

const WORD_WEIGHTS = 8u;

// Weights i to i + 3, which divide by 4, from the word that holds their low bits.
fn weights4(word: u32, i: u32) -> vec4f {
    let at = i / 32u * 3u;
    let second = (i / 16u) & 1u;
    let scale = scales[at];
    let step = unpack2x16float(scale).x * f32(bitcast<i32>(scale << (8u - second * 8u)) >> 24u);
    let low = (vec4u(word >> ((i & 4u) * 4u)) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
    let high = (vec4u(scales[at + 1u + second] >> ((i & 12u) * 2u)) >> vec4u(0u, 2u, 4u, 6u)) & vec4u(3u);
    return step * (vec4f(low | (high << vec4u(4u))) - 32.0);
}

// What the quants of a word of each of four blocks need in addition: their high bits, from the lowest on, and s of their half.
struct Side { high: vec4u, s: vec4f }
fn side(at: vec4u, word: u32) -> Side {
    let second = word / 2u;
    let first = at * 3u;
    let scale = vec4u(scales[first.x], scales[first.y], scales[first.z], scales[first.w]);
    let bits = first + 1u + second;
    let high = vec4u(scales[bits.x], scales[bits.y], scales[bits.z], scales[bits.w]) >> vec4u((word & 1u) * 16u);
    return Side(high, vec4f(bitcast<vec4i>(scale << vec4u(8u - second * 8u)) >> vec4u(24u)));
}

// Quant number i of each of four words: s (q - 32), a whole number.
fn quants(words: vec4u, i: u32, side: Side) -> vec4f {
    let q = ((words >> vec4u(i * 4u)) & vec4u(15u)) | (((side.high >> vec4u(i * 2u)) & vec4u(3u)) << vec4u(4u));
    return side.s * (vec4f(q) - 32.0);
}

// The same for GPUs.
fn unpacked(words: vec4u, i: u32, side: Side) -> vec4f { return quants(words, i, side); }

// d and m of a block: a weight is d times its quant, + m; and whether m is not always 0.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f { return vec2f(unpack2x16float(scales[block * 3u]).x, 0.0); }
