// matmul_row_blocks: C = α A Bᵀ for a few rows and a quantised B, as in decoding: B is read once, a block of 32 along k at a time.
//
//   A weight is d q + m, so that a block's part of a sum is d Σ a q + m Σ a. An invocation computes 4 columns of all rows, over every
//   SLICES-th block; the slices are summed at the end, in order.
//
// in, out    see matmul_problem; scales of B at binding 4
// grid       a workgroup a tile of ROWS × 4 LANES, in the order of tile_at
// constants  ROWS: 1, 2, 4 or 8, at least m if there are no groups; LANES and SLICES: a workgroup has LANES × SLICES invocations
// needs      side, quants and step_and_offset (weight_*, weights_*), block_at and block_words (matmul_b_blocks); sum_of_slices (matmul_slices),
//            unused if SLICES is 1
// numerics   f32

const PIECES = ROWS;

// Quants of four that a word has.
const FOURS = WORD_WEIGHTS / 4u;

@compute @workgroup_size(LANES * SLICES)
fn matmul_row_blocks(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = index / SLICES;
    let slice = index % SLICES;
    let tile = tile_at(group, ROWS, 4u * LANES);
    let column = tile.column + lane * 4u;
    var acc: array<vec4f, ROWS>;
    for (var block = slice; block < tile.last / 32u; block += SLICES) {
        let at = vec4u(block_at(tile.batch, column, p.n, block), block_at(tile.batch, column + 1u, p.n, block),
            block_at(tile.batch, column + 2u, p.n, block), block_at(tile.batch, column + 3u, p.n, block));
        var sums = array<vec4f, ROWS>();
        var a_sums = array<f32, ROWS>();
        for (var load = 0u; load < LOADS; load++) {
            let x = block_words(at.x, load);
            let y = block_words(at.y, load);
            let z = block_words(at.z, load);
            let t = block_words(at.w, load);
            // Word j of all four columns.
            var words = array<vec4u, 4>(vec4u(x.x, y.x, z.x, t.x), vec4u(x.y, y.y, z.y, t.y),
                vec4u(x.z, y.z, z.z, t.z), vec4u(x.w, y.w, z.w, t.w));
            for (var j = 0u; j < LOAD_WORDS; j++) {
                let beside = side(at, load * 4u + j);
                for (var four = 0u; four < FOURS; four++) {
                    let k = block * 32u + (load * 4u + j) * WORD_WEIGHTS + four * 4u;
                    let q0 = quants(words[j], four * 4u, beside);
                    let q1 = quants(words[j], four * 4u + 1u, beside);
                    let q2 = quants(words[j], four * 4u + 2u, beside);
                    let q3 = quants(words[j], four * 4u + 3u, beside);
                    for (var r = 0u; r < ROWS; r++) {
                        let a = load_a(tile.batch, tile.row + r, tile.rows, k, p.k);
                        sums[r] += a.x * q0 + a.y * q1 + a.z * q2 + a.w * q3;
                        a_sums[r] += (a.x + a.y) + (a.z + a.w);
                    }
                }
            }
        }
        let scale = array<vec2f, 4>(step_and_offset(at.x), step_and_offset(at.y),
            step_and_offset(at.z), step_and_offset(at.w));
        let d = vec4f(scale[0].x, scale[1].x, scale[2].x, scale[3].x);
        let m = vec4f(scale[0].y, scale[1].y, scale[2].y, scale[3].y);
        for (var r = 0u; r < ROWS; r++) { acc[r] += d * sums[r] + m * a_sums[r]; }
    }
    if (SLICES > 1u) {
        let sum = sum_of_slices(index, lane, slice, &acc);
        let piece = index / LANES;
        if (piece < PIECES) { store(tile, tile.row + piece, tile.column + index % LANES * 4u, sum); }
        return;
    }
    for (var r = 0u; r < ROWS; r++) { store(tile, tile.row + r, column, acc[r]); }
}
