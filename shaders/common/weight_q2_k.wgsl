// weight_q2_k: quantised weights d s q - e m, s and m of 16 of them, 16 a word of quants. The scales of 256 weights are d and e as f32 and 16
// bytes, s in their low halves and m in their high ones.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_16

const WORD_WEIGHTS = 16u;

// Quants i of words.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f { return vec4f((words >> (i * 2u)) & vec4u(3u)); }

// There are none.
fn high_bits(block: u32, word: u32) -> u32 { return 0u; }

// d s and -e m of the first or second 16 weights of a block, and whether there is an m.
const HAS_MINIMUM = true;
fn half_scale(block: u32, second: u32) -> vec2f {
    let at = block / 8u * 6u;
    let both = scales[at + 2u + block % 8u / 2u] >> ((block % 2u * 2u + second) * 8u);
    return vec2f(bitcast<f32>(scales[at]) * f32(both & 15u), -bitcast<f32>(scales[at + 1u]) * f32((both >> 4u) & 15u));
}
