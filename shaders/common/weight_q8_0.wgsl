// weight_q8_0: quantised weights d q, four signed bytes a word; a scale is an f32.
//
// needs  scales (matmul_b_blocks, table_blocks)

const WORD_WEIGHTS = 4u;

// Weights i to i + 3, which divide by 4, from the word that holds them.
fn weights4(word: u32, i: u32) -> vec4f {
    return bitcast<f32>(scales[i / 32u]) * vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}

// What the quants of a word of each of four blocks need in addition: nothing.
struct Side { nothing: u32 }
fn side(at: vec4u, word: u32) -> Side { return Side(0u); }

// Quant number i of each of four words.
fn quants(words: vec4u, i: u32, side: Side) -> vec4f {
    return vec4f(bitcast<vec4i>(words << vec4u(24u - i * 8u)) >> vec4u(24u));
}

// The same for GPUs.
fn unpacked(words: vec4u, i: u32, side: Side) -> vec4f { return quants(words, i, side); }

// d and m of a block: a weight is d q + m; and whether m is not always 0.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f { return vec2f(bitcast<f32>(scales[block]), 0.0); }
