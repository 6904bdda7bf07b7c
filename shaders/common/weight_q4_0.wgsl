// weight_q4_0: quantised weights d (q - 8); a scale is an f32.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_nibbles

// d and m of a block: a weight is d q + m; and whether m is not always 0.
const HAS_OFFSET = true;
fn step_and_offset(block: u32) -> vec2f { return bitcast<f32>(scales[block]) * vec2f(1.0, -8.0); }
