// cache_write_f16: keys and values of new tokens go to their places in caches of f16.
//
//   keys[b R, positions[b, t]] = new_keys[b, t], where the position is less than S; values as well
//
// in        new_keys, new_values (B, T, H, D) f32   positions (B, T) u32, distinct within a batch row
// out       keys, values (B R, S, H, D) f16, updated in place: every R-th row
// grid      one invocation for four elements of new_keys
// needs     cache_place; H D a multiple of 4
// numerics  rounded to f16; what f16 does not reach becomes its largest value

@group(0) @binding(1) var<storage, read> new_keys: array<vec4f>;       // (B, T, H * D)
@group(0) @binding(2) var<storage, read> new_values: array<vec4f>;     // (B, T, H * D)
@group(0) @binding(4) var<storage, read_write> keys: array<vec2u>;     // (B R, S, H * D)
@group(0) @binding(5) var<storage, read_write> values: array<vec2u>;   // (B R, S, H * D)

fn narrowed(x: vec4f) -> vec2u {
    let y = clamp(x, vec4f(-65504.0), vec4f(65504.0));
    return vec2u(pack2x16float(y.xy), pack2x16float(y.zw));
}

@compute @workgroup_size(64)
fn cache_write_f16(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    let at = place(index);
    if (at == NOWHERE) { return; }
    keys[at] = narrowed(new_keys[index]);
    values[at] = narrowed(new_values[index]);
}
