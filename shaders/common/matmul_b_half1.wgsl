// matmul_b_half1: operand B in f16 or bf16, two elements a word, one element a load, for rows of any length.
//
// needs  widen2 (weight_f16 or weight_bf16)

@group(0) @binding(2) var<storage, read> b: array<u32>;

fn element_b(i: u32) -> f32 {
    let pair = widen2(b[i / 2u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Elements i to i + 3 if they are `inside`; zeros from number `count` on.
fn b_four(i: u32, inside: bool, count: u32) -> vec4f {
    let there = vec4<bool>(inside) & (vec4u(0u, 1u, 2u, 3u) < vec4u(count));
    let at = select(vec4u(0u), vec4u(i) + vec4u(0u, 1u, 2u, 3u), there);
    return select(vec4f(0.0), vec4f(element_b(at.x), element_b(at.y), element_b(at.z), element_b(at.w)), there);
}
