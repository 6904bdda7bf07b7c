// scales_signed: the scales of q3_k and q6_k: d s, s of 16 weights. Those of 256 weights begin with d as f32 and 16 bytes of s.
//
// needs  scales (matmul_b_blocks, table_blocks), SCALE_WORDS (weight_*)

// d s of the first or second 16 weights of a block; m is 0.
const HAS_MINIMUM = false;
fn half_scale(block: u32, second: u32) -> vec2f {
    let at = block / 8u * SCALE_WORDS;
    let s = bitcast<i32>(scales[at + 1u + block % 8u / 2u] << (24u - (block % 2u * 2u + second) * 8u)) >> 24u;
    return vec2f(bitcast<f32>(scales[at]) * f32(s), 0.0);
}
