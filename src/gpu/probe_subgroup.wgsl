// probe_subgroup: whether subgroup functions are right in workgroups of one subgroup, with its lanes in order.
//
// bindings  1: verdict (4 * LANES), 1 where all was right, 2 where something was not
// grid      4 workgroups
// needs     subgroups of LANES lanes, always

@group(0) @binding(1) var<storage, read_write> verdict: array<u32>;

fn value(group: u32, lane: u32) -> u32 {
    return (group * LANES + lane + 1u) * 2654435761u;
}

@compute @workgroup_size(LANES)
fn probe_subgroup(
    @builtin(workgroup_id) w: vec3u,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_invocation_id) place: u32,
    @builtin(subgroup_size) size: u32,
) {
    let x = value(w.x, lane);
    var sum = 0u;
    var small = 0u;
    var most = 0u;
    for (var k = 0u; k < LANES; k++) {
        let other = value(w.x, k);
        sum += other;
        small += other >> 20u;
        most = max(most, other);
    }
    var right = size == LANES && place == lane;
    right &= subgroupAdd(x) == sum;
    // Whole numbers that a float holds, in any order.
    right &= subgroupAdd(f32(x >> 20u)) == f32(small);
    right &= subgroupMax(x) == most;
    for (var k = 0u; k < LANES; k++) {
        right &= subgroupShuffle(x, k) == value(w.x, k);
        right &= subgroupShuffle(x, (lane + k) % LANES) == value(w.x, (lane + k) % LANES);
    }
    for (var mask = 1u; mask < LANES; mask *= 2u) {
        right &= subgroupShuffleXor(x, mask) == value(w.x, lane ^ mask);
    }
    verdict[w.x * LANES + lane] = select(2u, 1u, right);
}
