// load_factors: how much the scores of each expert weigh in the loss that keeps loads even.
//
//   tokens = sum of counts / k, at least 1      factors[e] = E counts[e] / tokens^2      inverse = 1 / tokens
//
// in        counts (E) f32
// out       factors (E) f32   inverse (1) f32
// grid      one invocation for each expert
// numerics  every invocation sums the counts in the same order: exact while the sum is below 2^24
// paper     Fedus et al., arXiv:2101.03961

struct Params { base: u32, groups: u32, experts: u32, k: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> counts: array<f32>;           // (E)
@group(0) @binding(2) var<storage, read_write> factors: array<f32>;    // (E)
@group(0) @binding(3) var<storage, read_write> inverse: array<f32>;    // (1)

@compute @workgroup_size(64)
fn load_factors(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let expert = group * 64u + lane;
    if (expert >= p.experts) { return; }
    var sum = 0.0;
    for (var e = 0u; e < p.experts; e++) { sum += counts[e]; }
    let tokens = max(sum / p.k, 1.0);
    factors[expert] = f32(p.experts) * (counts[expert] / tokens) / tokens;
    if (expert == 0u) { inverse[0] = 1.0 / tokens; }
}
