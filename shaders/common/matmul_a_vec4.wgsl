// matmul_a_vec4: operand A in f32, four elements a load.
//
// needs      stored rows, offset and distance of matrices that are multiples of 4 elements
// constants  WHOLE: no tile reaches over an edge

@group(0) @binding(1) var<storage, read> a: array<vec4f>;

// Elements i to i + 3 as one vector; zeros unless they are `inside`.
fn a_four(i: u32, inside: bool, count: u32) -> vec4f {
    if (WHOLE) { return a[i / 4u]; }
    return select(vec4f(0.0), a[select(0u, i / 4u, inside)], inside);
}
