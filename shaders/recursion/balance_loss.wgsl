// balance_loss: the balancing loss of a router that gives each token one of R choices, and the share of tokens of each choice.
//
//   shares[r] = R #{n : choice[n] = r} / tokens,  loss = aux Σ_r shares[r] (Σ_n p[n, r] / tokens) + z Σ_n lse(logits[n])² / tokens
//   tokens = N, or Σ_b min(lengths[b], T); tokens past the length of their row are left out
//
// in        logits, p (N, R) f32   choice (N) u32   lengths (B) u32, if has_lengths; N = B T
// out       loss (1) f32   shares (R) f32   counted (1) f32: 1 / tokens
// grid      one workgroup of LANES invocations
// needs     the constant LANES, common/reduce_workgroup
// numerics  f32 sums of every LANES-th token, then a fixed tree; counts are exact below 2^24

struct Params {
    base: u32, groups: u32,
    tokens: u32, num_choices: u32, time: u32, has_lengths: u32, aux: f32, z: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // (N, R)
@group(0) @binding(2) var<storage, read> chances: array<f32>;         // (N, R)
@group(0) @binding(3) var<storage, read> choice: array<u32>;          // (N)
@group(0) @binding(4) var<storage, read> lengths: array<u32>;         // (B)
@group(0) @binding(5) var<storage, read_write> loss: array<f32>;      // (1)
@group(0) @binding(6) var<storage, read_write> shares: array<f32>;    // (R)
@group(0) @binding(7) var<storage, read_write> counted: array<f32>;   // (1)

fn inside(token: u32) -> bool {
    if (p.has_lengths == 0u) { return true; }
    return token % p.time < lengths[token / p.time];
}

fn log_sum(token: u32) -> f32 {
    var top = logits[token * p.num_choices];
    for (var r = 1u; r < p.num_choices; r++) { top = max(top, logits[token * p.num_choices + r]); }
    var sum = 0.0;
    for (var r = 0u; r < p.num_choices; r++) { sum += exp(max(logits[token * p.num_choices + r] - top, -100.0)); }
    return top + log(sum);
}

@compute @workgroup_size(LANES)
fn balance_loss(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    var squares = 0.0;
    var there = 0.0;
    for (var token = lane; token < p.tokens; token += LANES) {
        if (inside(token)) {
            let l = log_sum(token);
            squares += l * l;
            there += 1.0;
        }
    }
    let share = 1.0 / max(sum_over_workgroup(there, lane), 1.0);
    var all = p.z * sum_over_workgroup(squares, lane) * share;
    for (var r = 0u; r < p.num_choices; r++) {
        var chance = 0.0;
        var count = 0.0;
        for (var token = lane; token < p.tokens; token += LANES) {
            if (inside(token)) {
                chance += chances[token * p.num_choices + r];
                count += select(0.0, 1.0, choice[token] == r);
            }
        }
        let load = f32(p.num_choices) * sum_over_workgroup(count, lane) * share;
        all += p.aux * load * sum_over_workgroup(chance, lane) * share;
        if (lane == 0u) { shares[r] = load; }
    }
    if (lane == 0u) {
        loss[0] = all;
        counted[0] = share;
    }
}
