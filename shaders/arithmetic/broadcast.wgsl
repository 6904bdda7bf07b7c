// broadcast: a tensor repeated along axes that it lacks, times a factor; the gradient of sums and means.
//
//   out[i] = factor x[(i / inner) mod period]
//
// A scalar has period 1; a row repeated over rows has inner 1 and its length as period; a column repeated along the last
// axis has that axis' length as inner.
//
// in        x (period) f32
// out       out (n) f32
// grid      one invocation for 1 element (4 where 4 divides n)
// needs     common/elements4 or elements1, `count` in units of Element
// numerics  one rounding

struct Params { base: u32, groups: u32, count: u32, inner: u32, period: u32, factor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;               // (period)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (n)

fn at(i: u32) -> f32 { return x[(i / p.inner) % p.period]; }

@compute @workgroup_size(64)
fn broadcast(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let e = group * 64u + lane;
    if (e < p.count) {
        let i = e * WIDTH;
        out[e] = narrow(vec4f(at(i), at(i + 1u), at(i + 2u), at(i + 3u)) * p.factor);
    }
}
