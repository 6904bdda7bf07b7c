// keep_positions: the positions in the text of the tokens in slots of a cache.
//
//   kept[b R, slots[b, k]] = positions[b, k], where the slot is less than S
//
// in        slots, positions (B, K) u32, slots distinct within a row
// out       kept (B R, S) u32, updated in place: every R-th row
// grid      one invocation a new token
// numerics  integers

struct Params { base: u32, groups: u32, count: u32, per_row: u32, size: u32, stride: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> slots: array<u32>;           // (B, K)
@group(0) @binding(2) var<storage, read> positions: array<u32>;       // (B, K)
@group(0) @binding(3) var<storage, read_write> kept: array<u32>;      // (B R, S)

@compute @workgroup_size(64)
fn keep_positions(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                  @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let token = group * 64u + lane;
    if (token >= p.count) { return; }
    let slot = slots[token];
    if (slot >= p.size) { return; }
    kept[token / p.per_row * p.stride + slot] = positions[token];
}
