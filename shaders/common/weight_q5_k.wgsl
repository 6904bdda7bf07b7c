// weight_q5_k: quantised weights d s q - e m, s and m of 32 of them. The fifth bits follow the scales.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_32, steps_q5, scales_with_minima

// Words of the scales of 256 weights.
const SCALE_WORDS = 14u;

fn high_bits(block: u32, word: u32) -> u32 { return scales[block / 8u * SCALE_WORDS + 6u + block % 8u] >> (word * 8u); }
