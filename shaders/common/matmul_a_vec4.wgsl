// matmul_a_vec4: operand A in f32, four elements a load.
//
// needs      stored rows, offset and distance of matrices that are multiples of 4 elements
// constants  WHOLE: no tile reaches over an edge

@group(0) @binding(1) var<storage, read> a: array<vec4f>;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_a(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let i = (batch * p.a_batch + p.a_offset + a_line(row, rows) * p.a_stride + column) / 4u;
    if (WHOLE) { return a[i]; }
    let inside = row < rows && column < columns;
    return select(vec4f(0.0), a[select(0u, i, inside)], inside);
}
