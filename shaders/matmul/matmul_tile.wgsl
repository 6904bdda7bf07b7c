// matmul_tile: C = α op(A) op(B) by tiles in workgroup memory, for GPUs.
//
//   A workgroup of SIDE² invocations computes a tile, each invocation ROW_BLOCKS × COLUMN_BLOCKS blocks of 4×4 elements of it, SIDE blocks
//   apart, from slices of DEPTH along k. The slice after the current one is on its way in registers while the current one is used. The
//   more blocks, the fewer reads of workgroup memory a multiply-add: 1/8 of a vec4 for one block, 3/32 for two, 1/16 for four.
//
// in, out    see matmul_problem
// grid       a workgroup a tile of 4 SIDE ROW_BLOCKS × 4 SIDE COLUMN_BLOCKS, in the order of tile_at
// constants  SIDE: 16 or 8; ROW_BLOCKS, COLUMN_BLOCKS: 1 or 2; DEPTH: 16 or 8; BUFFERS: slices in workgroup memory, 1 or 2. With 2 of
//            them the next one is stored while others still use the current one: one barrier a slice instead of two
// needs      source_a, source_b, fetch_a, fetch_b (matmul_slice_loads); workgroup memory: BUFFERS times 4.8 KiB (32×32 tiles), 8.8 KiB (64×64),
//            13 KiB (128×64) or 8.3 KiB (128×128 with a DEPTH of 8)
// numerics   f32, each element summed in the order of k

const A_BLOCKS = SIDE * ROW_BLOCKS;        // blocks of a slice across k
const B_BLOCKS = SIDE * COLUMN_BLOCKS;
const A_STRIDE = A_BLOCKS + 1u;            // from one vec4 of a block to the next
const B_STRIDE = B_BLOCKS + 1u;
const A_SLICE = 4u * A_STRIDE + 4u - 32u / DEPTH;   // from one row of blocks to the next
const B_SLICE = 4u * B_STRIDE + 4u - 32u / DEPTH;
const FOURS = DEPTH / 4u;
const SIZE = SIDE * SIDE;
const A_LOADS = A_BLOCKS * DEPTH / SIZE;   // vec4s of a slice an invocation loads: 1 or 2
const B_LOADS = B_BLOCKS * DEPTH / SIZE;

var<workgroup> a_tile: array<vec4f, BUFFERS * FOURS * A_SLICE>;
var<workgroup> b_tile: array<vec4f, BUFFERS * FOURS * B_SLICE>;

fn a_block_at(i: u32) -> Block {
    let x = Block(a_tile[i], a_tile[i + A_STRIDE], a_tile[i + 2u * A_STRIDE], a_tile[i + 3u * A_STRIDE]);
    if (A_TRANSPOSED) { return transpose_block(x); }
    return x;
}

fn b_block_at(i: u32) -> Block {
    let y = Block(b_tile[i], b_tile[i + B_STRIDE], b_tile[i + 2u * B_STRIDE], b_tile[i + 3u * B_STRIDE]);
    if (B_TRANSPOSED) { return transpose_block(y); }
    return y;
}

fn add_block(sum: Block, x: Block, y: Block) -> Block {
    return Block(add_products(sum[0], x[0], y), add_products(sum[1], x[1], y), add_products(sum[2], x[2], y), add_products(sum[3], x[3], y));
}

fn store_row(at: Tile, row: u32, column: u32, x: vec4f) { store(at, row, column, select(vec4f(0.0), x, row < at.rows)); }

fn store_block(at: Tile, row: u32, column: u32, x: Block) {
    store_row(at, row, column, x[0]);
    store_row(at, row + 1u, column, x[1]);
    store_row(at, row + 2u, column, x[2]);
    store_row(at, row + 3u, column, x[3]);
}

@compute @workgroup_size(SIZE)
fn matmul_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let at = tile_at(group, 4u * A_BLOCKS, 4u * B_BLOCKS);
    let mine = vec2u(lane % SIDE, lane / SIDE);
    let a0 = source_a(at, lane, 0u);
    let a1 = source_a(at, lane, 1u);
    let b0 = source_b(at, lane, 0u);
    let b1 = source_b(at, lane, 1u);
    // All sums are variables of their own, so that no compiler puts them in memory. Those that a variant has no use for vanish.
    var c00 = Block();
    var c01 = Block();
    var c10 = Block();
    var c11 = Block();
    var buffer = 0u;
    var x0 = fetch_a(at, a0, at.first);
    var y0 = fetch_b(at, b0, at.first);
    var x1 = vec4f();
    var y1 = vec4f();
    if (A_LOADS > 1u) { x1 = fetch_a(at, a1, at.first); }
    if (B_LOADS > 1u) { y1 = fetch_b(at, b1, at.first); }
    for (var k = at.first; k < at.last; k += DEPTH) {
        a_tile[buffer * FOURS * A_SLICE + a0.place] = x0;
        b_tile[buffer * FOURS * B_SLICE + b0.place] = y0;
        if (A_LOADS > 1u) { a_tile[buffer * FOURS * A_SLICE + a1.place] = x1; }
        if (B_LOADS > 1u) { b_tile[buffer * FOURS * B_SLICE + b1.place] = y1; }
        workgroupBarrier();
        x0 = fetch_a(at, a0, k + DEPTH);
        y0 = fetch_b(at, b0, k + DEPTH);
        if (A_LOADS > 1u) { x1 = fetch_a(at, a1, k + DEPTH); }
        if (B_LOADS > 1u) { y1 = fetch_b(at, b1, k + DEPTH); }
        for (var q = 0u; q < FOURS; q++) {
            let at_a = (buffer * FOURS + q) * A_SLICE + mine.y;
            let at_b = (buffer * FOURS + q) * B_SLICE + mine.x;
            let x = a_block_at(at_a);
            let y = b_block_at(at_b);
            c00 = add_block(c00, x, y);
            if (COLUMN_BLOCKS > 1u) { c01 = add_block(c01, x, b_block_at(at_b + SIDE)); }
            if (ROW_BLOCKS > 1u) {
                let z = a_block_at(at_a + SIDE);
                c10 = add_block(c10, z, y);
                if (COLUMN_BLOCKS > 1u) { c11 = add_block(c11, z, b_block_at(at_b + SIDE)); }
            }
        }
        if (BUFFERS == 1u) { workgroupBarrier(); }
        buffer = (buffer + 1u) % BUFFERS;
    }
    let row = at.row + mine.y * 4u;
    let column = at.column + mine.x * 4u;
    store_block(at, row, column, c00);
    if (COLUMN_BLOCKS > 1u) { store_block(at, row, column + 4u * SIDE, c01); }
    if (ROW_BLOCKS > 1u) { store_block(at, row + 4u * SIDE, column, c10); }
    if (ROW_BLOCKS > 1u && COLUMN_BLOCKS > 1u) { store_block(at, row + 4u * SIDE, column + 4u * SIDE, c11); }
}
