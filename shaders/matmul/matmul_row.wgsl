// matmul_row: C = α A op(B) for a few rows, as in decoding: B is read once, which takes most of the time.
//
//   An invocation computes SPAN times 4 neighbouring columns of all rows, over every SLICES-th block of 4 along k; the slices are
//   summed at the end, in order. The wider the span, the fewer loads of A; one of 4 is a cache line of B, and the first of its
//   loads brings what the others need, for all lanes at once.
//
// in, out    see matmul_problem; A is not transposed
// grid       a workgroup a tile of ROWS × 4 LANES SPAN, in the order of tile_at
// constants  ROWS: 1, 2, 4 or 8, at least m if there are no groups; LANES and SLICES: a workgroup has LANES × SLICES invocations; SPAN: 1 to 4
// layout     neighbours lie along the stored rows of B: along k if B is transposed, else along the columns
// needs      sum_of_slices (matmul_slices), unused if SLICES is 1
// numerics   f32

const PIECES = ROWS * SPAN;

@compute @workgroup_size(LANES * SLICES)
fn matmul_row(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = select(index % LANES, index / SLICES, B_TRANSPOSED);
    let slice = select(index / LANES, index % SLICES, B_TRANSPOSED);
    let at = tile_at(group, ROWS, 4u * LANES * SPAN);
    let column = at.column + lane * 4u * SPAN;
    var acc: array<vec4f, PIECES>;
    var a: array<vec4f, ROWS>;
    for (var k = slice * 4u; k < at.last; k += SLICES * 4u) {
        for (var r = 0u; r < ROWS; r++) { a[r] = load_a(at.batch, at.row + r, at.rows, k, p.k); }
        for (var s = 0u; s < SPAN; s++) {
            let b = b_block(at, k, column + s * 4u);
            for (var r = 0u; r < ROWS; r++) {
                acc[r * SPAN + s] += a[r].x * b[0] + a[r].y * b[1] + a[r].z * b[2] + a[r].w * b[3];
            }
        }
    }
    if (SLICES > 1u) {
        let sum = sum_of_slices(index, lane, slice, &acc);
        let piece = index / LANES;
        if (piece < PIECES) { store(at, at.row + piece / SPAN, at.column + (index % LANES * SPAN + piece % SPAN) * 4u, sum); }
        return;
    }
    for (var r = 0u; r < ROWS; r++) {
        for (var s = 0u; s < SPAN; s++) { store(at, at.row + r, column + s * 4u, acc[r * SPAN + s]); }
    }
}
