// matmul_b_half4: operand B in f16 or bf16, two elements a word, four elements a load.
//
// needs  widen2 (weight_f16 or weight_bf16); stored rows, offset and distance of matrices that are multiples of 4 elements

@group(0) @binding(2) var<storage, read> b: array<vec2u>;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let inside = row < rows && column < columns;
    let i = (batch * p.b_batch + p.b_offset + row * p.b_stride + column) / 4u;
    let words = b[select(0u, i, inside)];
    return select(vec4f(0.0), vec4f(widen2(words.x), widen2(words.y)), inside);
}
