// matmul_row_blocks_lanes: C = α A Bᵀ for up to 8 rows and a quantised B, for drivers that run shaders on the CPU with subgroups of 8.
//
//   As matmul_row_blocks_shuffle, but each lane loads another row of A, which costs a load for four elements of all rows: more for one
//   row, and less from three rows on, as shuffles have constant lanes.
//
// in, out    see matmul_problem; scales of B at binding 4
// grid       a workgroup a tile of ROWS × 32, in the order of tile_at
// constants  ROWS: 1, 2, 4 or 8, at least m if there are no groups
// needs      subgroups of 8, a workgroup is one; side, quants and step_and_offset (weight_*, weights_*), block_at and
//            block_words (matmul_b_blocks)
// numerics   f32

// Quants of four that a word has.
const FOURS = WORD_WEIGHTS / 4u;

@compute @workgroup_size(8)
fn matmul_row_blocks_lanes(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tile = tile_at(group, ROWS, 32u);
    let column = tile.column + lane * 4u;
    let first = vec4u(block_at(tile.batch, column, p.n, 0u), block_at(tile.batch, column + 1u, p.n, 0u),
        block_at(tile.batch, column + 2u, p.n, 0u), block_at(tile.batch, column + 3u, p.n, 0u));
    var acc: array<vec4f, ROWS>;
    for (var block = 0u; block < tile.last / 32u; block++) {
        let at = first + block;
        let s0 = step_and_offset(at.x);
        let s1 = step_and_offset(at.y);
        let s2 = step_and_offset(at.z);
        let s3 = step_and_offset(at.w);
        var total = 0.0;
        var sums = array<vec4f, ROWS>();
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
                    let a = load_a(tile.batch, tile.row + min(lane, ROWS - 1u), tile.rows, k, p.k);
                    total += (a.x + a.y) + (a.z + a.w);
                    let q0 = quants(words[j], four * 4u, beside);
                    let q1 = quants(words[j], four * 4u + 1u, beside);
                    let q2 = quants(words[j], four * 4u + 2u, beside);
                    let q3 = quants(words[j], four * 4u + 3u, beside);
                    for (var r = 0u; r < ROWS; r++) {
                        sums[r] += subgroupShuffle(a.x, r) * q0 + subgroupShuffle(a.y, r) * q1
                            + subgroupShuffle(a.z, r) * q2 + subgroupShuffle(a.w, r) * q3;
                    }
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            acc[r] += vec4f(s0.x, s1.x, s2.x, s3.x) * sums[r] + vec4f(s0.y, s1.y, s2.y, s3.y) * subgroupShuffle(total, r);
        }
    }
    for (var r = 0u; r < ROWS; r++) { store(tile, tile.row + r, column, acc[r]); }
}
