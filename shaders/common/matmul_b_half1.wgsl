// matmul_b_half1: operand B in f16 or bf16, two elements a word, one element a load, for rows of any length.
//
// needs  widen2 (weight_f16 or weight_bf16)

@group(0) @binding(2) var<storage, read> b: array<u32>;

fn element_b(i: u32) -> f32 {
    let pair = widen2(b[i / 2u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let first = batch * p.b_batch + p.b_offset + row * p.b_stride + column;
    let inside = vec4<bool>(row < rows) & (vec4u(column) + vec4u(0u, 1u, 2u, 3u) < vec4u(columns));
    let i = select(vec4u(0u), vec4u(first) + vec4u(0u, 1u, 2u, 3u), inside);
    return select(vec4f(0.0), vec4f(element_b(i.x), element_b(i.y), element_b(i.z), element_b(i.w)), inside);
}
