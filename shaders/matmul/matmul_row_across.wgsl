// matmul_row_across: C = α A B for a few rows, as in decoding, for GPUs: B is read once, by loads of 16 bytes.
//
//   An invocation computes the columns of a load for all rows, over every SLICES-th four of rows of B; neighbours load neighbouring bytes.
//
// in, out    see matmul_problem; rows of both operands are whole loads
// grid       a workgroup a tile of ROWS × STEP LANES, in the order of tile_at
// constants  ROWS: 1, 2, 4 or 8, at least m if there are no groups; LANES and SLICES: a workgroup has LANES × SLICES invocations
// needs      add_rows and store_sums (matmul_few_rows); b, STEP, low_four and high_four (matmul_b_step_*)
// numerics   f32

@compute @workgroup_size(LANES * SLICES)
fn matmul_row_across(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = index % LANES;
    let slice = index / LANES;
    let at = tile_at(group, ROWS, STEP * LANES);
    let column = min(at.column + lane * STEP, p.n - STEP);
    let rows = rows_of(at);
    let stride = p.b_stride / STEP;
    var i = b_index(at.batch, slice * 4u, at.last, column) / STEP;
    var low = Sums();
    var high = Sums();
    for (var four = slice; four < at.last / 4u; four += SLICES) {
        let x = b[i];
        let y = b[i + stride];
        let z = b[i + 2u * stride];
        let t = b[i + 3u * stride];
        add_rows(&low, rows, four, Block(low_four(x), low_four(y), low_four(z), low_four(t)));
        if (STEP > 4u) { add_rows(&high, rows, four, Block(high_four(x), high_four(y), high_four(z), high_four(t))); }
        i += 4u * SLICES * stride;
    }
    store_sums(at, index, lane, slice, low, at.column, STEP);
    if (STEP > 4u) {
        workgroupBarrier();
        store_sums(at, index, lane, slice, high, at.column + 4u, STEP);
    }
}
