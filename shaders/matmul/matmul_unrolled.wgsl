// matmul_unrolled: C = α op(A) op(B) in registers, for compilers that leave loops and arrays as they are (SwiftShader's).
//
//   An invocation computes 8 rows and 8 columns as four blocks of 4×4, whose elements are only named by constants: anything else would
//   lie in memory there.
//
// in, out    see matmul_problem
// grid       an invocation a tile of 8×8, in the order of tile_at
// constants  LANES: invocations of a workgroup
// numerics   f32, each element summed in the order of k, four at a time

fn row_times(a: vec4f, b: Block) -> vec4f { return a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3]; }

fn multiply_add(sums: Block, a: Block, b: Block) -> Block {
    return Block(
        sums[0] + row_times(a[0], b), sums[1] + row_times(a[1], b), sums[2] + row_times(a[2], b), sums[3] + row_times(a[3], b),
    );
}

fn store_block(at: Tile, row: u32, column: u32, sums: Block) {
    store(at, row, column, sums[0]);
    store(at, row + 1u, column, sums[1]);
    store(at, row + 2u, column, sums[2]);
    store(at, row + 3u, column, sums[3]);
}

@compute @workgroup_size(LANES)
fn matmul_unrolled(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    // Invocations past the end work on rows past the end: nothing is loaded or stored for them.
    let at = tile_at(group * LANES + lane, 8u, 8u);
    var upper_left = Block();
    var upper_right = Block();
    var lower_left = Block();
    var lower_right = Block();
    for (var k = at.first; k < at.last; k += 4u) {
        let upper = a_block(at, at.row, k);
        let lower = a_block(at, at.row + 4u, k);
        let left = b_block(at, k, at.column);
        let right = b_block(at, k, at.column + 4u);
        upper_left = multiply_add(upper_left, upper, left);
        upper_right = multiply_add(upper_right, upper, right);
        lower_left = multiply_add(lower_left, lower, left);
        lower_right = multiply_add(lower_right, lower, right);
    }
    store_block(at, at.row, at.column, upper_left);
    store_block(at, at.row, at.column + 4u, upper_right);
    store_block(at, at.row + 4u, at.column, lower_left);
    store_block(at, at.row + 4u, at.column + 4u, lower_right);
}
