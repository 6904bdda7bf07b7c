// matmul_sum_splits: the second pass of a product that was split along k: C = the sum of the parts, in order, with the epilogue.
//
// in         parts (splits, m, n) f32
// out        see matmul_problem
// grid       one invocation for an Element of the result
// constants  OUT_BINDING: 2
// needs      finish (matmul_finish), Element (matmul_out_*); p.batch is the number of splits
// numerics   f32, parts in order: the same bits on every run

@group(0) @binding(1) var<storage, read> parts: array<Element>;

@compute @workgroup_size(64)
fn matmul_sum_splits(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = (p.base + w.x + w.y * n.x) * 64u + lane;
    let columns = p.n / OUT_WIDTH;
    let count = p.m * columns;
    if (i >= count) { return; }
    var sum = parts[i];
    for (var split = 1u; split < p.batch; split++) { sum += parts[split * count + i]; }
    let column = i % columns * OUT_WIDTH;
    finish((p.c_offset + i / columns * p.c_stride + column) / OUT_WIDTH, (p.c_column + column) / OUT_WIDTH, sum);
}
