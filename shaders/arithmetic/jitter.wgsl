// jitter: elements times random factors around 1.
//
//   out[i] = x[i] (1 + amount (2 u[i] − 1))
//   u[2j], u[2j + 1] = the upper 24 bits of threefry(seed, (j, salt)), as numbers in [0, 1)
//
// in        x (count) f32   seed (2) u32
// out       out (count) f32
// grid      one invocation for two consecutive elements
// needs     common/random
// numerics  the words are the same on every machine and in the backward pass; three roundings

struct Params { base: u32, groups: u32, count: u32, salt: u32, amount: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (count)
@group(0) @binding(2) var<storage, read> seed: array<u32>;        // (2)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // (count)

@compute @workgroup_size(64)
fn jitter(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let pair = group * 64u + lane;
    let i = pair * 2u;
    if (i >= p.count) { return; }
    let random = threefry(vec2u(seed[0], seed[1]), vec2u(pair, p.salt));
    let factors = 1.0 + p.amount * (vec2f(random >> vec2u(8u)) * 0x1p-23 - 1.0);
    out[i] = x[i] * factors.x;
    if (i + 1u < p.count) { out[i + 1u] = x[i + 1u] * factors.y; }
}
