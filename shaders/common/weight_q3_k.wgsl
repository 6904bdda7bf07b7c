// weight_q3_k: quantised weights d s (q - 4), s of 16 of them. A word of quants is the low two bits of 16; the third bits follow the scales.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_16, scales_signed

const WORD_WEIGHTS = 16u;
// Words of the scales of 256 weights.
const SCALE_WORDS = 13u;

// Quants i of words, less 4, with their third bits.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f {
    return vec4f(((words >> (i * 2u)) & vec4u(3u)) | (((high >> i) & vec4u(1u)) << vec4u(2u))) - 4.0;
}

// The third bits of a word of a block, from the lowest on.
fn high_bits(block: u32, word: u32) -> u32 { return scales[block / 8u * SCALE_WORDS + 5u + block % 8u] >> (word * 16u); }
