// segment_starts: where each row's keys begin in the sorted keys, by binary search.
//
//   starts[r] = #{i : keys[i] < r},  0 ≤ r ≤ rows
//
// in        keys (count) u32, ascending
// out       starts (rows + 1) u32
// grid      one invocation for each r
// numerics  integers

struct Params { base: u32, groups: u32, count: u32, rows: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;           // (count)
@group(0) @binding(2) var<storage, read_write> starts: array<u32>;   // (rows + 1)

@compute @workgroup_size(256)
fn segment_starts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * 256u + lane;
    if (row > p.rows) { return; }
    var low = 0u;
    var high = p.count;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (keys[middle] < row) { low = middle + 1u; } else { high = middle; }
    }
    starts[row] = low;
}
