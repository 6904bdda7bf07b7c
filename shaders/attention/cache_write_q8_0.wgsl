// cache_write_q8_0: keys and values of new tokens go to their places in caches of blocks of 32 of 8 bits.
//
//   d = max |x| / 127;   q = round(x / d)      of each block; keys[b R, positions[b, t]], where the position is less than S; values as well
//
// in        new_keys, new_values (B, T, H, D) f32   positions (B, T) u32, distinct within a batch row
// out       keys, values (B R, S, H, D) q8_0, updated in place: every R-th row; the scales stand behind all quants
// grid      one invocation for a block of new_keys
// needs     cache_place; constant KV_SCALES (the word of the first scale); D a multiple of 32
// numerics  f32; half a step of rounding

@group(0) @binding(1) var<storage, read> new_keys: array<vec4f>;       // (B, T, H * D)
@group(0) @binding(2) var<storage, read> new_values: array<vec4f>;     // (B, T, H * D)
@group(0) @binding(4) var<storage, read_write> keys: array<u32>;       // (B R, S, H * D)
@group(0) @binding(5) var<storage, read_write> values: array<u32>;     // (B R, S, H * D)

fn largest(x: vec4f) -> f32 { return max(max(abs(x.x), abs(x.y)), max(abs(x.z), abs(x.w))); }

// The steps of a vector from zero, as bytes.
fn bytes(x: vec4f, inverse: f32) -> u32 {
    let q = bitcast<vec4u>(vec4i(clamp(round(x * inverse), vec4f(-127.0), vec4f(127.0)))) & vec4u(255u);
    return q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
}

@compute @workgroup_size(64)
fn cache_write_q8_0(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                    @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    let at = place(index);
    if (at == NOWHERE) { return; }
    var most = vec2f();
    for (var i = 0u; i < 8u; i++) {
        most = max(most, vec2f(largest(new_keys[index * 8u + i]), largest(new_values[index * 8u + i])));
    }
    let step = most / 127.0;
    let inverse = select(1.0 / max(step, vec2f(1e-37)), vec2f(), step < vec2f(1e-37));
    for (var i = 0u; i < 8u; i++) {
        keys[at * 8u + i] = bytes(new_keys[index * 8u + i], inverse.x);
        values[at * 8u + i] = bytes(new_values[index * 8u + i], inverse.y);
    }
    keys[KV_SCALES + at] = bitcast<u32>(step.x);
    values[KV_SCALES + at] = bitcast<u32>(step.y);
}
