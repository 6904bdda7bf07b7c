// cross_entropy_mean: the mean loss of the rows that have a label, and the weight of each row.
//
//   scale = 1 / #{r : 0 ≤ labels[r] < classes},  loss = scale · Σ_r losses[r];  both 0 if no row counts
//
// in        losses (rows) f32   labels (rows) i32
// out       loss, scale (1) f32
// grid      one workgroup of LANES invocations
// needs     the constant LANES, common/reduce_workgroup
// numerics  f32 sums of every LANES-th row, then a fixed tree; counts are exact below 2^24

struct Params { base: u32, groups: u32, rows: u32, classes: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> losses: array<f32>;        // (rows)
@group(0) @binding(2) var<storage, read> labels: array<i32>;        // (rows)
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;    // (1)
@group(0) @binding(4) var<storage, read_write> scale: array<f32>;   // (1)

@compute @workgroup_size(LANES)
fn cross_entropy_mean(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    var sum = 0.0;
    var count = 0.0;
    for (var row = lane; row < p.rows; row += LANES) {
        sum += losses[row];
        count += select(0.0, 1.0, labels[row] >= 0 && u32(labels[row]) < p.classes);
    }
    let all = sum_over_workgroup(sum, lane);
    let counted = sum_over_workgroup(count, lane);
    if (lane == 0u) {
        let one = select(0.0, 1.0 / max(counted, 1.0), counted > 0.0);
        loss[0] = all * one;
        scale[0] = one;
    }
}
