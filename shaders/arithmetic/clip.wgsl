// clip: a tensor within limits.
//
//   out[i] = x[i] between -limit and limit
//
// in        x (n) f32
// out       out (n) f32
// grid      one invocation for 1 element (4 where 4 divides n)
// needs     common/elements4 or elements1, `count` in units of Element
// numerics  exact

struct Params { base: u32, groups: u32, count: u32, limit: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (n)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (n)

@compute @workgroup_size(64)
fn clip(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i < p.count) {
        out[i] = clamp(x[i], Element(-p.limit), Element(p.limit));
    }
}
