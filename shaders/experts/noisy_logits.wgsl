// noisy_logits: normal noise of a learned standard deviation on the logits of a gate, and the gradient of that deviation.
//
//   out[i] = a[i] + n[i] softplus(raw[i]); with BACKWARD a[i] n[i] σ(raw[i])
//   n[i] = the normal number of threefry(seed, (i, salt))
//
// in        a (count) f32: the logits, with BACKWARD the upstream gradient   raw (count) f32   seed (2) u32
// out       out (count) f32
// grid      one invocation for each element
// needs     the constant BACKWARD; common/random, common/normal
// numerics  the noise is the same in the backward pass; the exponential is of −|raw|
// paper     Shazeer et al., arXiv:1701.06538

struct Params { base: u32, groups: u32, count: u32, salt: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;           // (count)
@group(0) @binding(2) var<storage, read> raw: array<f32>;         // (count)
@group(0) @binding(3) var<storage, read> seed: array<u32>;        // (2)
@group(0) @binding(4) var<storage, read_write> out: array<f32>;   // (count)

@compute @workgroup_size(64)
fn noisy_logits(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let noise = normal(threefry(vec2u(seed[0], seed[1]), vec2u(i, p.salt)));
    let x = raw[i];
    let e = exp(max(-abs(x), -87.0));
    if (BACKWARD) {
        out[i] = a[i] * noise * select(e, 1.0, x >= 0.0) / (1.0 + e);
    } else {
        out[i] = a[i] + noise * (max(x, 0.0) + log(1.0 + e));
    }
}
