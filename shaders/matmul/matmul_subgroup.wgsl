// matmul_subgroup: C = α op(A) op(B) in registers, spread by subgroup shuffles, for drivers that run shaders on the CPU.
//
//   A subgroup computes a tile of ROWS × LANES rows and 4 WIDE × LANES columns. Each lane loads other rows of A and other columns of
//   B; a shuffle with a constant lane is the only cheap broadcast there, and a load costs as much as tens of multiplications.
//   A lane's columns lie side by side, so that the first load of a row of B brings all cache lines of it at once.
//
// in, out    see matmul_problem
// grid       a workgroup a tile, in the order of tile_at
// constants  LANES: the subgroup size, which must be the same everywhere; ROWS: 1, 2, 4 or 8 rows of the tile a lane;
//            WIDE: 1 or 2 vectors of four columns a lane
// needs      subgroup shuffles, a workgroup is one subgroup; A not transposed if ROWS is less than 4
// numerics   f32, each element summed in the order of k, four at a time

// Blocks of rows a lane holds, and the rows of one. Where those are fewer than four, the block's other rows are not used, and compilers
// leave their loads out.
const HIGH = min(ROWS, 4u);
const BLOCKS = ROWS / HIGH;

@compute @workgroup_size(LANES)
fn matmul_subgroup(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let at = tile_at(group, ROWS * LANES, 4u * WIDE * LANES);
    let column = at.column + lane * 4u * WIDE;
    let row = at.row;
    // Row (r LANES + j) HIGH + i of the tile is acc[r][i][j]. Every loop runs over a whole axis of the array, else Mesa unrolls none of
    // them and keeps the array in memory, which costs a factor of 5.
    var acc: array<array<array<array<vec4f, WIDE>, LANES>, HIGH>, BLOCKS>;
    for (var k = at.first; k < at.last; k += 4u) {
        var b = array<Block, WIDE>();
        for (var c = 0u; c < WIDE; c++) { b[c] = b_block(at, k, column + c * 4u); }
        for (var r = 0u; r < BLOCKS; r++) {
            var a = a_block(at, row + (r * LANES + lane) * HIGH, k);
            for (var i = 0u; i < HIGH; i++) {
                for (var j = 0u; j < LANES; j++) {
                    let x = subgroupShuffle(a[i].x, j);
                    let y = subgroupShuffle(a[i].y, j);
                    let z = subgroupShuffle(a[i].z, j);
                    let w = subgroupShuffle(a[i].w, j);
                    for (var c = 0u; c < WIDE; c++) { acc[r][i][j][c] += x * b[c][0] + y * b[c][1] + z * b[c][2] + w * b[c][3]; }
                }
            }
        }
    }
    for (var r = 0u; r < BLOCKS; r++) {
        for (var i = 0u; i < HIGH; i++) {
            for (var j = 0u; j < LANES; j++) {
                for (var c = 0u; c < WIDE; c++) {
                    store(at, row + (r * LANES + j) * HIGH + i, column + c * 4u, acc[r][i][j][c]);
                }
            }
        }
    }
}
