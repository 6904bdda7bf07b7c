// weight_q5_1: quantised weights d q + m; a scale is d and m as f16, d in the low half, and the fifth bits of 32 quants.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_32, steps_q5

fn high_bits(block: u32, word: u32) -> u32 { return scales[block * 2u + 1u] >> (word * 8u); }

// d and m of a block: a weight is d times its step, + m; and whether m is not always 0.
const HAS_OFFSET = true;
fn step_and_offset(block: u32) -> vec2f { return unpack2x16float(scales[block * 2u]); }
