// matmul_b_vec4: operand B in f32, four elements a load.
//
// needs      stored rows, offset and distance of matrices that are multiples of 4 elements
// constants  WHOLE: no tile reaches over an edge

@group(0) @binding(2) var<storage, read> b: array<vec4f>;

// Elements i to i + 3 as one vector; zeros unless they are `inside`.
fn b_four(i: u32, inside: bool, count: u32) -> vec4f {
    if (WHOLE) { return b[i / 4u]; }
    return select(vec4f(0.0), b[select(0u, i / 4u, inside)], inside);
}
