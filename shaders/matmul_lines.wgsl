// matmul_lines: C = α op(A) op(B) in registers, for compilers that leave loops and arrays as they are (SwiftShader's).
//
//   An invocation computes 4 rows and 8 columns, each sum a variable of its own: an array would lie in memory there.
//
// in, out    see matmul_problem
// grid       an invocation a tile of 4×8, in the order of place
// constants  LANES: invocations of a workgroup
// numerics   f32, each element summed in the order of k, four at a time

fn row_times(a: vec4f, b: Block) -> vec4f { return a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3]; }

@compute @workgroup_size(LANES)
fn matmul_lines(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    // Invocations past the end work on rows past the end: nothing is loaded or stored for them.
    let at = place(group * LANES + lane, 4u, 8u);
    let column = at.column;
    let row = at.row;
    var left0 = vec4f();
    var left1 = vec4f();
    var left2 = vec4f();
    var left3 = vec4f();
    var right0 = vec4f();
    var right1 = vec4f();
    var right2 = vec4f();
    var right3 = vec4f();
    for (var k = at.first; k < at.last; k += 4u) {
        let x = a_block(at, row, k);
        let y = b_block(at, k, column);
        let z = b_block(at, k, column + 4u);
        left0 += row_times(x[0], y);
        left1 += row_times(x[1], y);
        left2 += row_times(x[2], y);
        left3 += row_times(x[3], y);
        right0 += row_times(x[0], z);
        right1 += row_times(x[1], z);
        right2 += row_times(x[2], z);
        right3 += row_times(x[3], z);
    }
    store(at, row, column, left0);
    store(at, row + 1u, column, left1);
    store(at, row + 2u, column, left2);
    store(at, row + 3u, column, left3);
    store(at, row, column + 4u, right0);
    store(at, row + 1u, column + 4u, right1);
    store(at, row + 2u, column + 4u, right2);
    store(at, row + 3u, column + 4u, right3);
}
