// matmul_a_texture: operand A in f32, read through a texture.
//
// constants  A_ALIGNED: stored rows, offset and distance of matrices are multiples of 4 elements
// needs      elements4 (texture_elements)

@group(0) @binding(1) var a: Texels;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_a(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let inside = vec4<bool>(row < rows) & (vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(columns));
    let first = select(0u, batch * p.a_batch + p.a_offset + row * p.a_stride + column, inside.x);
    return select(vec4f(0.0), elements4(a, first, A_ALIGNED), inside);
}
