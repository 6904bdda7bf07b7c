// matmul_row: C = α A op(B) for a few rows, as in decoding: B is read once, and that is what takes the time.
//
//   An invocation computes 4 columns of all rows, over every SLICES-th block of 4 along k; the slices are summed at the end, in order.
//
// in, out    see matmul_problem; A is not transposed
// grid       a workgroup 4 LANES columns, columns fastest, then the batch
// constants  ROWS: 1, 2, 4 or 8, at least m; LANES and SLICES: a workgroup has LANES × SLICES invocations
// layout     neighbours lie along the stored rows of B: along k if B is transposed, else along the columns
// needs      16 LANES × SLICES bytes of workgroup memory, unused if SLICES is 1
// numerics   f32

var<workgroup> partial: array<vec4f, LANES * SLICES>;

@compute @workgroup_size(LANES * SLICES)
fn matmul_row(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = select(index % LANES, index / SLICES, B_TRANSPOSED);
    let slice = select(index / LANES, index % SLICES, B_TRANSPOSED);
    let across_n = (p.n + 4u * LANES - 1u) / (4u * LANES);
    let column = (group % across_n * LANES + lane) * 4u;
    let batch = group / across_n;
    var acc: array<vec4f, ROWS>;
    for (var k = slice * 4u; k < p.k; k += SLICES * 4u) {
        let b = b_block(batch, k, column);
        for (var r = 0u; r < ROWS; r++) {
            let a = load_a(batch, r, p.m, k, p.k);
            acc[r] += a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        if (SLICES > 1u) {
            partial[slice * LANES + lane] = acc[r];
            workgroupBarrier();
            if (slice == 0u) {
                for (var i = 1u; i < SLICES; i++) { acc[r] += partial[i * LANES + lane]; }
            }
            workgroupBarrier();
        }
        if (slice == 0u) { store(batch, r, column, acc[r]); }
    }
}
