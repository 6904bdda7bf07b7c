// add: the sum of two tensors of one shape.
//
//   out[i] = a[i] + b[i]
//
// in        a (n) f32   b (n) f32
// out       out (n) f32
// grid      one invocation for 4 consecutive elements
// numerics  exact rounding

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;           // (n)
@group(0) @binding(2) var<storage, read> b: array<f32>;           // (n)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // (n)

@compute @workgroup_size(64)
fn add(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let first = (group * 64u + lane) * 4u;
    let end = min(first + 4u, p.count);
    for (var i = first; i < end; i++) {
        out[i] = a[i] + b[i];
    }
}
