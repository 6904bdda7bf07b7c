// cache_write: rows of new tokens go to their places in a cache.
//
//   cache[b, positions[b, t]] = new[b, t], where the position is less than S
//
// in        new (B, T, H, D) f32   positions (B, T) u32, distinct within a batch row
// out       cache (B, S, H, D) f32, updated in place
// grid      one invocation for an element of new
// numerics  exact

struct Params { base: u32, groups: u32, count: u32, tokens: u32, slots: u32, row: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> new_rows: array<f32>;         // (B, T, H * D)
@group(0) @binding(2) var<storage, read> positions: array<u32>;        // (B, T)
@group(0) @binding(3) var<storage, read_write> cache: array<f32>;      // (B, S, H * D)

@compute @workgroup_size(64)
fn cache_write(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
               @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let token = index / p.row;
    let position = positions[token];
    if (position >= p.slots) { return; }
    cache[(token / p.tokens * p.slots + position) * p.row + index % p.row] = new_rows[index];
}
