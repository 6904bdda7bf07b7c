// bench_copy: out = x, every element read once and written once, the ceiling of memory traffic.
//
// in         x (n) f32 as vec4
// out        out (n) f32 as vec4
// grid       a workgroup LANES · EACH vec4; an invocation takes every LANES-th of them, so that neighbours lie together
// constants  LANES; EACH: vec4 an invocation
// numerics   exact

struct Params { base: u32, groups: u32, vectors: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;           // (n / 4)
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;   // (n / 4)

@compute @workgroup_size(LANES)
fn bench_copy(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    for (var e = 0u; e < EACH; e++) {
        let i = (group * EACH + e) * LANES + lane;
        if (i < p.vectors) { out[i] = x[i]; }
    }
}
