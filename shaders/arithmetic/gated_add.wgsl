// gated_add: a matrix is added to another, each row times a factor.
//
//   out[n, c] = x[n, c] + gate[n] y[n, c]
//
// in        x, y (N, C) f32   gate (N) f32
// out       out (N, C) f32
// grid      one invocation for 1 element (4 where 4 divides C)
// needs     common/elements4 or elements1, `count` and `width` in units of Element
// numerics  two roundings

struct Params { base: u32, groups: u32, count: u32, width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (N, C)
@group(0) @binding(2) var<storage, read> y: array<Element>;           // (N, C)
@group(0) @binding(3) var<storage, read> gate: array<f32>;            // (N)
@group(0) @binding(4) var<storage, read_write> out: array<Element>;   // (N, C)

@compute @workgroup_size(64)
fn gated_add(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i < p.count) { out[i] = x[i] + gate[i / p.width] * y[i]; }
}
