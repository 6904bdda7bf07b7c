// fill: one value in every element.
//
//   out[i] = value
//
// out       out (n) words
// grid      one invocation for 4 consecutive words
// numerics  a copy of bits

struct Params { base: u32, groups: u32, count: u32, value: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;   // (n)

@compute @workgroup_size(256)
fn fill(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let first = (group * 256u + lane) * 4u;
    let end = min(first + 4u, p.count);
    for (var i = first; i < end; i++) {
        out[i] = p.value;
    }
}
