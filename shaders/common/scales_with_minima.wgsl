// scales_with_minima: the scales of q4_k and q5_k: d s and -e m, s and m of 32 weights. Those of 256 weights begin with d and e as f32, 8 bytes of
// s and 8 of m.
//
// needs  scales (matmul_b_blocks, table_blocks), SCALE_WORDS (weight_*)

// d and m of a block: a weight is d times its step, + m; and whether m is not always 0.
const HAS_OFFSET = true;
fn step_and_offset(block: u32) -> vec2f {
    let at = block / 8u * SCALE_WORDS;
    let byte = block % 4u * 8u;
    let word = at + 2u + block % 8u / 4u;
    let s = (scales[word] >> byte) & 255u;
    let m = (scales[word + 2u] >> byte) & 255u;
    return vec2f(bitcast<f32>(scales[at]) * f32(s), -bitcast<f32>(scales[at + 1u]) * f32(m));
}
