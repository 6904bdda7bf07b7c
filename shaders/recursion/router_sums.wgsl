// router_sums: the statistics of a router over the tokens of a step, as sums for its report.
//
//   out = (load of way 0, …, load of way R − 1, slots dropped, Σ entropies, tokens)
//   SOURCE 0: load[r] = starts[r + 1] − starts[r], dropped = starts[R] − kept[R]
//   SOURCE 1: load[r] = #{n : way[n] = r}            SOURCE 2, R = 1: load = #{n : inverse[n] names a slot}
//   tokens = N, or Σ_b min(lengths[b], T); tokens past the length of their row are left out
//
// in        entropies (N) f32   source u32: starts (R + 1), way (N) or inverse (N)   kept (R + 1) u32, if has_kept
//           lengths (B) u32, if has_lengths; N = B T
// out       out (R + 3) f32
// grid      one workgroup of LANES invocations
// needs     the constants LANES, SOURCE; common/reduce_workgroup
// numerics  f32 sums of every LANES-th token, then a fixed tree; counts are exact below 2^24

struct Params {
    base: u32, groups: u32,
    tokens: u32, num_choices: u32, time: u32, has_kept: u32, has_lengths: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> entropies: array<f32>;   // (N)
@group(0) @binding(2) var<storage, read> source: array<u32>;      // (R + 1) or (N)
@group(0) @binding(3) var<storage, read> kept: array<u32>;        // (R + 1)
@group(0) @binding(4) var<storage, read> lengths: array<u32>;     // (B)
@group(0) @binding(5) var<storage, read_write> out: array<f32>;   // (R + 3)

fn inside(token: u32) -> bool {
    if (p.has_lengths == 0u) { return true; }
    return token % p.time < lengths[token / p.time];
}

fn goes(token: u32, way: u32) -> f32 {
    if (SOURCE == 2u) { return select(0.0, 1.0, source[token] != 0xffffffffu); }
    return select(0.0, 1.0, source[token] == way);
}

@compute @workgroup_size(LANES)
fn router_sums(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    var entropy = 0.0;
    var there = 0.0;
    for (var token = lane; token < p.tokens; token += LANES) {
        if (inside(token)) {
            entropy += entropies[token];
            there += 1.0;
        }
    }
    entropy = sum_over_workgroup(entropy, lane);
    there = sum_over_workgroup(there, lane);
    if (SOURCE == 0u) {
        for (var way = lane; way < p.num_choices; way += LANES) { out[way] = f32(source[way + 1u] - source[way]); }
    } else {
        for (var way = 0u; way < p.num_choices; way++) {
            var count = 0.0;
            for (var token = lane; token < p.tokens; token += LANES) {
                if (inside(token)) { count += goes(token, way); }
            }
            count = sum_over_workgroup(count, lane);
            if (lane == 0u) { out[way] = count; }
        }
    }
    if (lane == 0u) {
        var dropped = 0u;
        if (p.has_kept != 0u) { dropped = source[p.num_choices] - kept[p.num_choices]; }
        out[p.num_choices] = f32(dropped);
        out[p.num_choices + 1u] = entropy;
        out[p.num_choices + 2u] = there;
    }
}
