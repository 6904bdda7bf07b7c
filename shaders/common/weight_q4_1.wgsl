// weight_q4_1: quantised weights d q + m; a scale is d and m as f16, d in the low half.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_nibbles

// d and m of a block: a weight is d q + m; and whether m is not always 0.
const HAS_OFFSET = true;
fn step_and_offset(block: u32) -> vec2f { return unpack2x16float(scales[block]); }
