// probe_subgroups: whether sums and maxima over workgroups of several subgroups are right.
//
// bindings  1: verdict (4 * LANES), 1 where all was right, 2 where something was not
// grid      4 workgroups
// needs     reduce_subgroups and its constants

@group(0) @binding(1) var<storage, read_write> verdict: array<u32>;

// Whole numbers that a float holds, also their sums in any order.
fn value(group: u32, lane: u32) -> u32 { return ((group * LANES + lane + 1u) * 2654435761u) >> 20u; }

@compute @workgroup_size(LANES)
fn probe_subgroups(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
    var sum = 0u;
    var most = 0u;
    for (var k = 0u; k < LANES; k++) {
        sum += value(w.x, k);
        most = max(most, value(w.x, k));
    }
    let x = f32(value(w.x, lane));
    var right = sum_over_workgroup(x, lane) == f32(sum);
    right &= max_over_workgroup(x, lane) == f32(most);
    right &= sum_over_workgroup(x, lane) == f32(sum);
    verdict[w.x * LANES + lane] = select(2u, 1u, right);
}
