// reduce_subgroups: the functions of reduce_workgroup for a workgroup of any number of subgroups of any size.
//
// use       sum_over_workgroup(x, lane), max_over_workgroup(x, lane) in uniform control flow; all invocations get the result
// needs     the constants LANES and SUBGROUP_MIN, powers of two: no subgroup is smaller, none begins at another multiple; its lanes are
//           neighbours; 4 LANES / SUBGROUP_MIN bytes of workgroup memory
// numerics  the order of the sum is the driver's, the same on every run

const SUBGROUPS = max(1u, LANES / SUBGROUP_MIN);

var<workgroup> subgroup_values: array<f32, SUBGROUPS>;

fn sum_over_workgroup(x: f32, lane: u32) -> f32 {
    let sum = subgroupAdd(x);
    // A subgroup that is larger has more than one place: the others are zero.
    let first = subgroupBroadcastFirst(lane) == lane;
    if (lane % SUBGROUP_MIN == 0u) { subgroup_values[lane / SUBGROUP_MIN] = select(0.0, sum, first); }
    workgroupBarrier();
    var all = 0.0;
    for (var i = 0u; i < SUBGROUPS; i++) { all += subgroup_values[i]; }
    // The next call must not write before all have read.
    workgroupBarrier();
    return all;
}

fn max_over_workgroup(x: f32, lane: u32) -> f32 {
    let most = subgroupMax(x);
    if (lane % SUBGROUP_MIN == 0u) { subgroup_values[lane / SUBGROUP_MIN] = most; }
    workgroupBarrier();
    var all = subgroup_values[0];
    for (var i = 1u; i < SUBGROUPS; i++) { all = max(all, subgroup_values[i]); }
    workgroupBarrier();
    return all;
}
