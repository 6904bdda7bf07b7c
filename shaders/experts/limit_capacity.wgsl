// limit_capacity: experts take no more than so many slots, the first ones; the others get no expert.
//
//   out[m] = index[m] if fewer than `capacity` earlier slots have the same,  else rows
//
// in        index (count) u32   order (count) u32: the slots sorted by index   starts (rows + 1) u32: where each row's begin
// out       out (count) u32
// grid      one invocation for each slot, in sorted order
// numerics  integers

struct Params { base: u32, groups: u32, count: u32, rows: u32, capacity: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;       // (count)
@group(0) @binding(2) var<storage, read> order: array<u32>;       // (count)
@group(0) @binding(3) var<storage, read> starts: array<u32>;      // (rows + 1)
@group(0) @binding(4) var<storage, read_write> out: array<u32>;   // (count)

@compute @workgroup_size(64)
fn limit_capacity(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let position = group * 64u + lane;
    if (position >= p.count) { return; }
    let slot = order[position];
    if (slot >= p.count) { return; }
    let row = index[slot];
    var taken = p.rows;
    if (row < p.rows && position - starts[min(row, p.rows)] < p.capacity) { taken = row; }
    out[slot] = taken;
}
