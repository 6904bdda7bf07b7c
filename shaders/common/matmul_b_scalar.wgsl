// matmul_b_scalar: operand B in f32, one element a load, for rows of any length.

@group(0) @binding(2) var<storage, read> b: array<f32>;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let first = batch * p.b_batch + p.b_offset + b_line(row, rows) * p.b_stride + column;
    let inside = vec4<bool>(row < rows) & (vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(columns));
    let i = select(vec4u(0u), vec4u(first) + vec4u(0u, 1u, 2u, 3u), inside);
    return select(vec4f(0.0), vec4f(b[i.x], b[i.y], b[i.z], b[i.w]), inside);
}
