// matmul_b_blocks: operand B quantised in blocks of 32 along its rows. A row is the quants of its blocks, then their scales.
//
// needs  weights4, QUANT_WORDS and WORD_WEIGHTS (weight_q*); stored rows that are whole blocks

@group(0) @binding(2) var<storage, read> b: array<u32>;

// Elements column to column + 3 of a row of the stored matrix (rows, columns); zero outside.
fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    let inside = row < rows && column < columns;
    let blocks = p.b_stride / 32u;
    let first = (batch * p.b_batch + p.b_offset + row * p.b_stride) / 32u * (QUANT_WORDS + 1u);
    let word = b[select(0u, first + column / WORD_WEIGHTS, inside)];
    let scale = b[select(0u, first + blocks * QUANT_WORDS + column / 32u, inside)];
    return select(vec4f(0.0), weights4(word, column, scale), inside);
}
