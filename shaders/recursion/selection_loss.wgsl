// selection_loss: the term of each candidate's logit in the loss of a router that selects tokens.
//
//   losses[b, i] = (aux (softplus(l) − [taken] l) + z l²) / candidates,  l = logits[b, i]
//   candidates = B N, or Σ_b min(lengths[b], N); past its length a row adds 0
//
// in        logits (B, N) f32   inverse (B, N) u32: NONE for a candidate that is not taken   lengths (B) u32, if has_lengths
// out       losses (B, N) f32
// grid      one invocation for a candidate
// numerics  softplus(l) = max(l, 0) + ln(1 + e^−|l|), so any finite logit is safe

struct Params {
    base: u32, groups: u32,
    count: u32, candidates: u32, batch: u32, has_lengths: u32, aux: f32, z: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;          // (B, N)
@group(0) @binding(2) var<storage, read> inverse: array<u32>;         // (B, N)
@group(0) @binding(3) var<storage, read> lengths: array<u32>;         // (B)
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;    // (B, N)

@compute @workgroup_size(64)
fn selection_loss(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.candidates;
    var there = p.count;
    var inside = true;
    if (p.has_lengths != 0u) {
        there = 0u;
        for (var b = 0u; b < p.batch; b++) { there += min(lengths[b], p.candidates); }
        inside = i - row * p.candidates < lengths[row];
    }
    let l = logits[i];
    let softplus = max(l, 0.0) + log(1.0 + exp(-min(abs(l), 80.0)));
    let loss = p.aux * (softplus - select(l, 0.0, inverse[i] == 0xffffffffu)) + p.z * l * l;
    losses[i] = select(0.0, loss / f32(max(there, 1u)), inside);
}
