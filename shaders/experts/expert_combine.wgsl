// expert_combine: a token's rows, one for each of its slots, summed in the order of the slots.
//
//   y[t, c] = Σ_k weight[t, k] x[rows[t K + k], c]      the weights are 1 without WEIGHTED
//
// in         x (m, width) Elements   rows (m) u32   weights (m) f32
// out        y (tokens, width) Elements
// grid       one invocation for each Element of y
// constants  WEIGHTED; needs common/elements4 or elements1
// numerics   f32

struct Params { base: u32, groups: u32, count: u32, width: u32, top_k: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> rows: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(64)
fn expert_combine(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let token = i / p.width;
    let c = i - token * p.width;
    var sum = Element();
    for (var slot = token * p.top_k; slot < (token + 1u) * p.top_k; slot++) {
        let value = x[rows[slot] * p.width + c];
        if (WEIGHTED) { sum += weights[slot] * value; } else { sum += value; }
    }
    y[i] = sum;
}
