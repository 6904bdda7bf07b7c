// matmul_b_blocks: operand B quantised in blocks of 32 along its rows.
//
// needs  weights4 and WORD_WEIGHTS (weight_q*); stored rows that are whole blocks

@group(0) @binding(2) var<storage, read> b: array<vec4u>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;

// Elements i to i + 3 as one vector; zeros unless they are `inside`.
fn b_four(i: u32, inside: bool, count: u32) -> vec4f {
    let at = select(0u, i, inside);
    let word = at / WORD_WEIGHTS;
    return select(vec4f(0.0), weights4(b[word / 4u][word % 4u], at), inside);
}

// The number of a block of a stored row; 0 outside.
fn block_at(batch: u32, row: u32, rows: u32, block: u32) -> u32 {
    return select(0u, (batch * p.b_batch + p.b_offset + row * p.b_stride) / 32u + block, row < rows);
}
