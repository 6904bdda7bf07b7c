// warm_capacity: the number of tokens of each recursion while capacities shrink over the first steps of training.
//
//   counts[r] = least[r] + floor((tokens − least[r]) · ½ (1 + cos(π · min(1, step / steps))))
//   step ← step + 1
//
// in        least (R) u32
// in, out   step (1) f32, in place
// out       counts (R) u32
// grid      one invocation
// numerics  ½ (1 + cos πx) = 1 − sin²(πx / 2) = sin²(π(1 − x) / 2); the sine is a polynomial on [0, π / 4], for cos in WGSL
//           may be off by 2^-11. Exact at both ends: all tokens at step 0, least from `steps` on

struct Params { base: u32, groups: u32, recursions: u32, tokens: u32, steps: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> least: array<u32>;           // (R)
@group(0) @binding(2) var<storage, read_write> step_now: array<f32>;  // (1)
@group(0) @binding(3) var<storage, read_write> counts: array<u32>;    // (R)

// sin²(πx / 2) for x from 0 to ½.
fn half_turn(x: f32) -> f32 {
    let t = 1.5707963267948966 * x;
    let u = t * t;
    let s = t * (1.0 + u * (-1.0 / 6.0 + u * (1.0 / 120.0 + u * (-1.0 / 5040.0 + u * (1.0 / 362880.0)))));
    return s * s;
}

@compute @workgroup_size(1)
fn warm_capacity(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u) {
    if (p.base + w.x + w.y * n.x >= p.groups) { return; }
    let now = step_now[0];
    let steps = f32(p.steps);
    let done = clamp(now, 0.0, steps);
    // Both differences are exact, so that the ends are.
    var share = half_turn(min(0.5, (steps - done) / steps));
    if (2.0 * done <= steps) { share = 1.0 - half_turn(min(0.5, done / steps)); }
    for (var r = 0u; r < p.recursions; r++) {
        let few = least[r];
        counts[r] = few + u32(floor(f32(p.tokens - few) * share));
    }
    step_now[0] = now + 1.0;
}
