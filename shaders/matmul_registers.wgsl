// matmul_registers: C = α op(A) op(B) in registers alone, for drivers that run shaders on the CPU without subgroups.
//
//   An invocation computes 16 rows and 8 columns, so that a load pays for as many multiplications as possible.
//
// in, out    see matmul_problem
// grid       an invocation a tile of 16×8, columns fastest, then rows, then the batch
// constants  LANES: invocations of a workgroup
// numerics   f32, each element summed in the order of k, four at a time

@compute @workgroup_size(LANES)
fn matmul_registers(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tile = group * LANES + lane;
    let across_n = (p.n + 7u) / 8u;
    let across_m = (p.m + 15u) / 16u;
    let batch = tile / across_n / across_m;
    let column = tile % across_n * 8u;
    // Invocations past the end work on rows past the end: nothing is loaded or stored for them.
    let row = select(p.m, tile / across_n % across_m * 16u, batch < p.batch);
    // Loops over whole axes of the arrays, as in matmul_subgroup.
    var left: array<array<vec4f, 4>, 4>;
    var right: array<array<vec4f, 4>, 4>;
    for (var k = 0u; k < p.k; k += 4u) {
        let b = b_block(batch, k, column);
        let c = b_block(batch, k, column + 4u);
        for (var r = 0u; r < 4u; r++) {
            var a = a_block(batch, row + r * 4u, k);
            for (var i = 0u; i < 4u; i++) {
                left[r][i] += a[i].x * b[0] + a[i].y * b[1] + a[i].z * b[2] + a[i].w * b[3];
                right[r][i] += a[i].x * c[0] + a[i].y * c[1] + a[i].z * c[2] + a[i].w * c[3];
            }
        }
    }
    for (var r = 0u; r < 4u; r++) {
        for (var i = 0u; i < 4u; i++) {
            store(batch, row + r * 4u + i, column, left[r][i]);
            store(batch, row + r * 4u + i, column + 4u, right[r][i]);
        }
    }
}
