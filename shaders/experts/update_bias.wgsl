// update_bias: moves the bias of experts that had too few tokens up, and of those that had too many down.
//
//   bias[e] += rate · sign(mean of counts − counts[e])
//
// in        counts (E) f32
// out       bias (E) f32, updated
// grid      one invocation for each expert
// numerics  every invocation sums the counts in the same order: exact while the sum is below 2^24
// paper     Wang et al., arXiv:2408.15664

struct Params { base: u32, groups: u32, experts: u32, rate: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> counts: array<f32>;        // (E)
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;    // (E)

@compute @workgroup_size(64)
fn update_bias(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let expert = group * 64u + lane;
    if (expert >= p.experts) { return; }
    var sum = 0.0;
    for (var e = 0u; e < p.experts; e++) { sum += counts[e]; }
    // Without a division, so that equal counts are found equal.
    bias[expert] += p.rate * sign(sum - f32(p.experts) * counts[expert]);
}
