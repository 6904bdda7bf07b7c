// cache_write: keys and values of new tokens go to their places in the caches.
//
//   keys[b R, positions[b, t]] = new_keys[b, t], where the position is less than S; values as well
//
// in        new_keys, new_values (B, T, H, D) f32   positions (B, T) u32, distinct within a batch row
// out       keys, values (B R, S, H, D) f32, updated in place: every R-th row
// grid      one invocation for an element of new_keys
// needs     cache_place
// numerics  exact

@group(0) @binding(1) var<storage, read> new_keys: array<f32>;         // (B, T, H * D)
@group(0) @binding(2) var<storage, read> new_values: array<f32>;       // (B, T, H * D)
@group(0) @binding(4) var<storage, read_write> keys: array<f32>;       // (B R, S, H * D)
@group(0) @binding(5) var<storage, read_write> values: array<f32>;     // (B R, S, H * D)

@compute @workgroup_size(64)
fn cache_write(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
               @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    let at = place(index);
    if (at == NOWHERE) { return; }
    keys[at] = new_keys[index];
    values[at] = new_values[index];
}
