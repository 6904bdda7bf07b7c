// balance_loss_backward: the gradients of balance_loss by the logits and by the probabilities of the choices.
//
//   dlogits[n, r] = 2 z dloss lse(logits[n]) softmax(logits[n])[r] / tokens,  dp[n, r] = aux dloss shares[r] / tokens
//   both 0 for tokens past the length of their row
//
// in        logits (N, R) f32   lengths (B) u32, if has_lengths; N = B T   shares (R), counted (1), dloss (1) f32
// out       dlogits, dp (N, R) f32
// grid      one invocation for a token
// numerics  the largest logit is subtracted before the exponential

struct Params {
    base: u32, groups: u32,
    tokens: u32, num_choices: u32, time: u32, has_lengths: u32, aux: f32, z: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;           // (N, R)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;          // (B)
@group(0) @binding(3) var<storage, read> shares: array<f32>;           // (R)
@group(0) @binding(4) var<storage, read> counted: array<f32>;          // (1)
@group(0) @binding(5) var<storage, read> dloss: array<f32>;            // (1)
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;    // (N, R)
@group(0) @binding(7) var<storage, read_write> dchances: array<f32>;   // (N, R)

@compute @workgroup_size(64)
fn balance_loss_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let token = group * 64u + lane;
    if (token >= p.tokens) { return; }
    var factor = dloss[0] * counted[0];
    if (p.has_lengths != 0u && token % p.time >= lengths[token / p.time]) { factor = 0.0; }
    let first = token * p.num_choices;
    var top = logits[first];
    for (var r = 1u; r < p.num_choices; r++) { top = max(top, logits[first + r]); }
    var sum = 0.0;
    for (var r = 0u; r < p.num_choices; r++) { sum += exp(max(logits[first + r] - top, -100.0)); }
    let slope = 2.0 * p.z * factor * (top + log(sum)) / sum;
    for (var r = 0u; r < p.num_choices; r++) {
        dlogits[first + r] = slope * exp(max(logits[first + r] - top, -100.0));
        dchances[first + r] = p.aux * factor * shares[r];
    }
}
