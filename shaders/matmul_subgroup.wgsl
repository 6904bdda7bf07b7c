// matmul_subgroup: C = α op(A) op(B) in registers, spread by subgroup shuffles, for drivers that run shaders on the CPU.
//
//   A subgroup computes a tile of ROWS × LANES rows and 4 LANES columns. Each lane loads other rows of A and other columns of B; a
//   shuffle with a constant lane is the only cheap broadcast there, and a load costs as much as tens of multiplications.
//
// in, out    see matmul_problem
// grid       a workgroup a tile, in the order of place
// constants  LANES: the subgroup size, which must be the same everywhere; ROWS: 4 or 8 rows of the tile a lane
// needs      subgroup shuffles, a workgroup is one subgroup
// numerics   f32, each element summed in the order of k, four at a time

// Blocks of four rows a lane holds.
const BLOCKS = ROWS / 4u;

@compute @workgroup_size(LANES)
fn matmul_subgroup(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let at = place(group, ROWS * LANES, 4u * LANES);
    let column = at.column + lane * 4u;
    let row = at.row;
    // Row (r LANES + j) 4 + i of the tile is acc[r][i][j]. Every loop runs over a whole axis of the array, else Mesa unrolls none of
    // them and keeps the array in memory, which costs a factor of 5.
    var acc: array<array<array<vec4f, LANES>, 4>, BLOCKS>;
    for (var k = at.first; k < at.last; k += 4u) {
        let b = b_block(at, k, column);
        for (var r = 0u; r < BLOCKS; r++) {
            var a = a_block(at, row + (r * LANES + lane) * 4u, k);
            for (var i = 0u; i < 4u; i++) {
                for (var j = 0u; j < LANES; j++) {
                    acc[r][i][j] += subgroupShuffle(a[i].x, j) * b[0] + subgroupShuffle(a[i].y, j) * b[1]
                        + subgroupShuffle(a[i].z, j) * b[2] + subgroupShuffle(a[i].w, j) * b[3];
                }
            }
        }
    }
    for (var r = 0u; r < BLOCKS; r++) {
        for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j < LANES; j++) {
                store(at, row + (r * LANES + j) * 4u + i, column, acc[r][i][j]);
            }
        }
    }
}
