// weight_iq4_xs: quantised weights d s step(q), s of 32 of them. The scales of 256 weights are d as f32 and 8 bytes of s.
//
// needs  scales (matmul_b_blocks, table_blocks), weights_by_32, steps_iq4

// d and m of a block: a weight is d times its step, + m; and whether m is not always 0.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f {
    let at = block / 8u * 3u;
    let s = bitcast<i32>(scales[at + 1u + block % 8u / 4u] << (24u - block % 4u * 8u)) >> 24u;
    return vec2f(bitcast<f32>(scales[at]) * f32(s), 0.0);
}
