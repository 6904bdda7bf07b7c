// radix_scatter: one stable pass of a radix sort: keys and their values are scattered by their digit.
//
//   out[starts[block, d] + #{j < i in block : digit_j = d}] = (key_i, value_i),  d = digit_i = (key_i >> shift) & 255
//
// in        keys, values (count) u32: in the first pass the keys are cut to `limit` and the values are 0, 1, 2, …
//           starts (blocks, 256) u32
// out       keys_out, values_out (count) u32
// grid      one workgroup for each block of 256 keys
// needs     1 KiB of workgroup memory
// numerics  integers; equal keys keep their order
// paper     Harada and Howes, "Introduction to GPU Radix Sort"

struct Params { base: u32, groups: u32, count: u32, shift: u32, limit: u32, is_first: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;               // (count)
@group(0) @binding(2) var<storage, read> values: array<u32>;             // (count)
@group(0) @binding(3) var<storage, read> starts: array<u32>;             // (blocks, 256)
@group(0) @binding(4) var<storage, read_write> keys_out: array<u32>;     // (count)
@group(0) @binding(5) var<storage, read_write> values_out: array<u32>;   // (count)

var<workgroup> digits: array<u32, 256>;

@compute @workgroup_size(256)
fn radix_scatter(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    let inside = i < p.count;
    var key = 0u;
    if (inside) { key = min(keys[i], p.limit); }
    let digit = (key >> p.shift) & 255u;
    digits[lane] = digit;
    workgroupBarrier();
    if (!inside) { return; }
    // What stands before this key in its block is inside as well.
    var at = starts[group * 256u + digit];
    for (var j = 0u; j < lane; j++) {
        at += select(0u, 1u, digits[j] == digit);
    }
    if (at < p.count) {
        keys_out[at] = key;
        var value = i;
        if (p.is_first == 0u) { value = values[i]; }
        values_out[at] = value;
    }
}
