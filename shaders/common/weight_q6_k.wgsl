// weight_q6_k: quantised weights d s (q - 32), s of 16 of them. A word of quants is the low four bits of eight; the high two follow the scales.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_16, scales_signed

const WORD_WEIGHTS = 8u;
// Words of the scales of 256 weights.
const SCALE_WORDS = 21u;

// Quants i of words, less 32, with their high bits.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f {
    return vec4f(((words >> (i * 4u)) & vec4u(15u)) | (((high >> (i * 2u)) & vec4u(3u)) << vec4u(4u))) - 32.0;
}

// The high bits of a word of a block, from the lowest on.
fn high_bits(block: u32, word: u32) -> u32 {
    return scales[block / 8u * SCALE_WORDS + 5u + block % 8u * 2u + word / 2u] >> (word % 2u * 16u);
}
