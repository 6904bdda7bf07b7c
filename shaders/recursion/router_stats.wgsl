// router_stats: the statistics of a router over the tokens of a step, as sums for its report.
//
//   out = (load of choice 0, …, load of choice R − 1, slots dropped, Σ entropies, tokens)
//   SOURCE 0: load[r] = starts[r + 1] − starts[r], dropped = starts[R] − limited[R]
//   SOURCE 1: load[r] = #{n : choice[n] = r}         SOURCE 2, R = 1: load = #{n : inverse[n] names a slot}
//   tokens = N, or Σ_b min(lengths[b], T); tokens past the length of their row are left out
//
// in        entropies (N) f32   source u32: starts (R + 1), choice (N) or inverse (N)   limited (R + 1) u32, if has_limited
//           lengths (B) u32, if has_lengths; N = B T
// out       out (R + 3) f32
// grid      one workgroup of LANES invocations
// needs     the constants LANES, SOURCE; common/reduce_workgroup
// numerics  f32 sums of every LANES-th token, then a fixed tree; counts are exact below 2^24

struct Params {
    base: u32, groups: u32,
    tokens: u32, num_choices: u32, time: u32, has_limited: u32, has_lengths: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> entropies: array<f32>;   // (N)
@group(0) @binding(2) var<storage, read> source: array<u32>;      // (R + 1) or (N)
@group(0) @binding(3) var<storage, read> limited: array<u32>;     // (R + 1)
@group(0) @binding(4) var<storage, read> lengths: array<u32>;     // (B)
@group(0) @binding(5) var<storage, read_write> out: array<f32>;   // (R + 3)

fn inside(token: u32) -> bool {
    if (p.has_lengths == 0u) { return true; }
    return token % p.time < lengths[token / p.time];
}

fn takes(token: u32, choice: u32) -> f32 {
    if (SOURCE == 2u) { return select(0.0, 1.0, source[token] != 0xffffffffu); }
    return select(0.0, 1.0, source[token] == choice);
}

@compute @workgroup_size(LANES)
fn router_stats(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    var entropy = 0.0;
    var tokens = 0.0;
    for (var token = lane; token < p.tokens; token += LANES) {
        if (inside(token)) {
            entropy += entropies[token];
            tokens += 1.0;
        }
    }
    entropy = sum_over_workgroup(entropy, lane);
    tokens = sum_over_workgroup(tokens, lane);
    if (SOURCE == 0u) {
        for (var choice = lane; choice < p.num_choices; choice += LANES) { out[choice] = f32(source[choice + 1u] - source[choice]); }
    } else {
        for (var choice = 0u; choice < p.num_choices; choice++) {
            var count = 0.0;
            for (var token = lane; token < p.tokens; token += LANES) {
                if (inside(token)) { count += takes(token, choice); }
            }
            count = sum_over_workgroup(count, lane);
            if (lane == 0u) { out[choice] = count; }
        }
    }
    if (lane == 0u) {
        var dropped = 0u;
        if (p.has_limited != 0u) { dropped = source[p.num_choices] - limited[p.num_choices]; }
        out[p.num_choices] = f32(dropped);
        out[p.num_choices + 1u] = entropy;
        out[p.num_choices + 2u] = tokens;
    }
}
