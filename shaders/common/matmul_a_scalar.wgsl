// matmul_a_scalar: operand A in f32, one element a load, for rows of any length.

@group(0) @binding(1) var<storage, read> a: array<f32>;

// Elements i to i + 3 if they are `inside`; zeros from number `count` on.
fn a_four(i: u32, inside: bool, count: u32) -> vec4f {
    let there = vec4<bool>(inside) & (vec4u(0u, 1u, 2u, 3u) < vec4u(count));
    let at = select(vec4u(0u), vec4u(i) + vec4u(0u, 1u, 2u, 3u), there);
    return select(vec4f(0.0), vec4f(a[at.x], a[at.y], a[at.z], a[at.w]), there);
}
