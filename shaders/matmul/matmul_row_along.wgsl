// matmul_row_along: C = α A Bᵀ for a few rows, as in decoding, for GPUs: B is read once, by loads of 16 bytes.
//
//   An invocation computes 4 neighbouring columns of all rows, over every SLICES-th load along k; neighbours load neighbouring bytes.
//   Where rows begin is computed once, so that a load costs an addition.
//
// in, out    see matmul_problem; rows of both operands are whole loads
// grid       a workgroup a tile of ROWS × 4 LANES, in the order of tile_at
// constants  ROWS: 1, 2, 4 or 8, at least m if there are no groups; LANES and SLICES: a workgroup has LANES × SLICES invocations
// needs      add_rows and store_sums (matmul_few_rows); b, STEP, low_four and high_four (matmul_b_step_*)
// numerics   f32

fn first_load(at: Tile, column: u32) -> u32 { return b_index(at.batch, min(column, p.n - 1u), p.n, 0u) / STEP; }

@compute @workgroup_size(LANES * SLICES)
fn matmul_row_along(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = index / SLICES;
    let slice = index % SLICES;
    let at = tile_at(group, ROWS, 4u * LANES);
    let column = at.column + lane * 4u;
    let rows = rows_of(at);
    let b0 = first_load(at, column);
    let b1 = first_load(at, column + 1u);
    let b2 = first_load(at, column + 2u);
    let b3 = first_load(at, column + 3u);
    var sums = Sums();
    for (var load = slice; load < at.last / STEP; load += SLICES) {
        let x = b[b0 + load];
        let y = b[b1 + load];
        let z = b[b2 + load];
        let t = b[b3 + load];
        let low = Block(low_four(x), low_four(y), low_four(z), low_four(t));
        add_rows(&sums, rows, load * (STEP / 4u), transpose_block(low));
        if (STEP > 4u) {
            let high = Block(high_four(x), high_four(y), high_four(z), high_four(t));
            add_rows(&sums, rows, load * (STEP / 4u) + 1u, transpose_block(high));
        }
    }
    store_sums(at, index, lane, slice, sums, at.column, 4u);
}
