// matmul_a_scalar: operand A in f32, one element a load, for rows of any length.

@group(0) @binding(1) var<storage, read> a: array<f32>;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_a(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let first = batch * p.a_batch + p.a_offset + a_line(row, rows) * p.a_stride + column;
    let inside = vec4<bool>(row < rows) & (vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(columns));
    let i = select(vec4u(0u), vec4u(first) + vec4u(0u, 1u, 2u, 3u), inside);
    return select(vec4f(0.0), vec4f(a[i.x], a[i.y], a[i.z], a[i.w]), inside);
}
