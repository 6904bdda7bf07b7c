// matmul_b_texture: operand B in f32, read through a texture.
//
// constants  B_ALIGNED: stored rows, offset and distance of matrices are multiples of 4 elements
// needs      elements4 (texture_elements)

@group(0) @binding(2) var b: Texels;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let inside = vec4<bool>(row < rows) & (vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(columns));
    let first = select(0u, batch * p.b_batch + p.b_offset + row * p.b_stride + column, inside.x);
    return select(vec4f(0.0), elements4(b, first, B_ALIGNED), inside);
}
