// row_entropy: the entropy of a router's decision for each token.
//
//   out[n] = ln S − Σ_r x[n, r] ln x[n, r] / S,  S = Σ_r x[n, r];  0 where S is not positive
//   with BINARY, R = 1: the entropy of saying yes with probability σ(x[n])
//   0 for tokens past the length of their row
//
// in        x (N, R) f32: scores that are not negative, or logits with BINARY   lengths (B) u32, if has_lengths; N = B T
// out       out (N) f32
// grid      one invocation for a token
// needs     the constant BINARY
// numerics  f32 sums in the order of the columns; the logarithm's of the adapter

struct Params { base: u32, groups: u32, tokens: u32, num_choices: u32, time: u32, has_lengths: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (N, R)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;     // (B)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // (N)

fn of_scores(first: u32) -> f32 {
    var sum = 0.0;
    var terms = 0.0;
    for (var r = 0u; r < p.num_choices; r++) {
        let score = max(x[first + r], 0.0);
        sum += score;
        // The least normal number in the logarithm, so that it is finite where the product is 0 anyway.
        terms += score * log(max(score, 1.2e-38));
    }
    let least = max(sum, 1.2e-38);
    return select(0.0, log(least) - terms / least, sum > 0.0);
}

fn of_logit(logit: f32) -> f32 {
    // The same for yes and no; the exponential of what is not positive is finite.
    let size = min(abs(logit), 80.0);
    let odds = exp(-size);
    return log(1.0 + odds) + size * odds / (1.0 + odds);
}

@compute @workgroup_size(64)
fn row_entropy(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let token = group * 64u + lane;
    if (token >= p.tokens) { return; }
    if (p.has_lengths != 0u && token % p.time >= lengths[token / p.time]) {
        out[token] = 0.0;
        return;
    }
    if (BINARY) { out[token] = of_logit(x[token]); } else { out[token] = of_scores(token * p.num_choices); }
}
