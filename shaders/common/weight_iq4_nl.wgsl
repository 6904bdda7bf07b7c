// weight_iq4_nl: quantised weights d step(q); a scale is an f32.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_32, steps_iq4

// d and m of a block: a weight is d times its step, + m; and whether m is not always 0.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f { return vec2f(bitcast<f32>(scales[block]), 0.0); }
