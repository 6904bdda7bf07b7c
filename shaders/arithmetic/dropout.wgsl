// dropout: elements dropped at random, the others scaled up so that the mean stays.
//
//   out[i] = x[i] · scale  if random[i] ≥ threshold,  else 0
//   random[2j], random[2j + 1] = threefry(seed, (j, salt))
//
// in        x (count) f32   seed (2) u32
// out       out (count) f32
// grid      one invocation for two consecutive elements
// needs     common/random
// numerics  the mask is the same on every machine and in the backward pass; one rounding

struct Params { base: u32, groups: u32, count: u32, salt: u32, threshold: u32, scale: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (count)
@group(0) @binding(2) var<storage, read> seed: array<u32>;        // (2)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // (count)

@compute @workgroup_size(64)
fn dropout(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let pair = group * 64u + lane;
    let i = pair * 2u;
    if (i >= p.count) { return; }
    let random = threefry(vec2u(seed[0], seed[1]), vec2u(pair, p.salt));
    out[i] = select(0.0, x[i] * p.scale, random.x >= p.threshold);
    if (i + 1u < p.count) {
        out[i + 1u] = select(0.0, x[i + 1u] * p.scale, random.y >= p.threshold);
    }
}
