// expert_slots: from slots in the order of their experts to their tokens, and for each slot its place in that order.
//
//   tokens[i] = order[i] / K      rows[order[i]] = i
//
// in        order (m) u32, a permutation
// out       tokens (m) u32   rows (m) u32
// grid      one invocation a slot
// numerics  exact

struct Params { base: u32, groups: u32, count: u32, top_k: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> order: array<u32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> rows: array<u32>;

@compute @workgroup_size(64)
fn expert_slots(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let slot = order[i];
    tokens[i] = slot / p.top_k;
    if (slot < p.count) { rows[slot] = i; }
}
