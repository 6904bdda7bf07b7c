// matmul_registers: C = α op(A) op(B) in registers alone, for drivers that run shaders on the CPU without subgroups.
//
//   An invocation computes 16 rows and 8 columns, so that a load pays for as many multiplications as possible.
//
// in, out    see matmul_problem
// grid       an invocation a tile of 16×8, in the order of tile_at
// constants  LANES: invocations of a workgroup
// numerics   f32, each element summed in the order of k, four at a time

@compute @workgroup_size(LANES)
fn matmul_registers(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    // Invocations past the end work on rows past the end: nothing is loaded or stored for them.
    let at = tile_at(group * LANES + lane, 16u, 8u);
    let column = at.column;
    let row = at.row;
    // Loops over whole axes of the arrays, as in matmul_subgroup.
    var left: array<array<vec4f, 4>, 4>;
    var right: array<array<vec4f, 4>, 4>;
    for (var k = at.first; k < at.last; k += 4u) {
        let b = b_block(at, k, column);
        let c = b_block(at, k, column + 4u);
        for (var r = 0u; r < 4u; r++) {
            var a = a_block(at, row + r * 4u, k);
            for (var i = 0u; i < 4u; i++) {
                left[r][i] += a[i].x * b[0] + a[i].y * b[1] + a[i].z * b[2] + a[i].w * b[3];
                right[r][i] += a[i].x * c[0] + a[i].y * c[1] + a[i].z * c[2] + a[i].w * c[3];
            }
        }
    }
    for (var r = 0u; r < 4u; r++) {
        for (var i = 0u; i < 4u; i++) {
            store(at, row + r * 4u + i, column, left[r][i]);
            store(at, row + r * 4u + i, column + 4u, right[r][i]);
        }
    }
}
