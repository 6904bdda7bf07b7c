// matmul_b_half4: operand B in f16 or bf16, two elements a word, four elements a load.
//
// needs  widen2 (weight_f16 or weight_bf16); stored rows, offset and distance of matrices that are multiples of 4 elements

@group(0) @binding(2) var<storage, read> b: array<vec2u>;

// Elements i to i + 3 as one vector; zeros unless they are `inside`.
fn b_four(i: u32, inside: bool, count: u32) -> vec4f {
    let words = b[select(0u, i / 4u, inside)];
    return select(vec4f(0.0), vec4f(widen2(words.x), widen2(words.y)), inside);
}
