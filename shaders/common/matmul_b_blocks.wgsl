// matmul_b_blocks: operand B quantised in blocks along its rows. What kernels call a block is 32 weights, also where a block has 256.
//
// needs  weights4 and WORD_WEIGHTS (weight_*, weights_*); stored rows that are whole blocks

@group(0) @binding(2) var<storage, read> b: array<vec4u>;
@group(0) @binding(4) var<storage, read> scales: array<u32>;

// Elements i to i + 3 as one vector; zeros unless they are `inside`.
fn b_four(i: u32, inside: bool, count: u32) -> vec4f {
    let at = select(0u, i, inside);
    let word = at / WORD_WEIGHTS;
    return select(vec4f(0.0), weights4(b[word / 4u][word % 4u], at), inside);
}

// Loads of four words for a block, and words of a load that are its own: a block of two words is half a load.
const LOADS = max(8u / WORD_WEIGHTS, 1u);
const LOAD_WORDS = min(32u / WORD_WEIGHTS, 4u);

// Load number `load` of a block, its own words first.
fn block_words(block: u32, load: u32) -> vec4u {
    if (LOAD_WORDS == 4u) { return b[block * LOADS + load]; }
    let both = b[block / 2u];
    return select(both, both.zwxy, block % 2u == 1u);
}

// The number of a block of a stored row; 0 outside.
fn block_at(batch: u32, row: u32, rows: u32, block: u32) -> u32 {
    return select(0u, (batch * p.b_batch + p.b_offset + row * p.b_stride) / 32u + block, row < rows);
}
