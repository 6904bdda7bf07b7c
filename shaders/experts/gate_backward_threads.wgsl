// gate_backward_threads: the gradient of a gate by its logits; one invocation a token.
//
//   dchosen[i] = scale · dweight[i]; with RENORMALISE scale / S · (dweight[i] − Σ_j dweight[j] s[j] / S),  S = Σ s + 1e-20
//   dscore = what comes for the scores, plus dchosen at the chosen experts
//   dlogit = s (dscore − Σ s dscore) of a softmax, s (1 − s) dscore with SIGMOID; plus dlse · softmax(logits)
//
// in        logits (T, EXPERTS) f32   experts (T, CHOICES) u32   dweights (T, CHOICES) f32   dscores (T, EXPERTS) f32
//           dlse (T) f32; those without HAS_… are not read (experts goes with dweights)
// out       dlogits (T, EXPERTS) f32
// grid      workgroups of LANES tokens
// needs     the constants above; common/gate
// numerics  scores are computed anew; renormalised weights don't change with the scale of the scores, so their Σ s dscore is 0

struct Params { base: u32, groups: u32, tokens: u32, scale: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;           // (T, EXPERTS)
@group(0) @binding(2) var<storage, read> experts: array<u32>;          // (T, CHOICES)
@group(0) @binding(3) var<storage, read> dweights: array<f32>;         // (T, CHOICES)
@group(0) @binding(4) var<storage, read> dscores: array<f32>;          // (T, EXPERTS)
@group(0) @binding(5) var<storage, read> dlse: array<f32>;             // (T)
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;    // (T, EXPERTS)

// The i-th expert that a token chose.
fn chosen_at(slot: u32) -> u32 { return min(experts[slot], EXPERTS - 1u); }

fn score_of(logit: f32, top: f32, inverse: f32) -> f32 {
    if (SIGMOID) { return logistic(logit); }
    return exp(max(logit - top, -100.0)) * inverse;
}

@compute @workgroup_size(LANES)
fn gate_backward_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let token = group * LANES + lane;
    if (token >= p.tokens) { return; }
    let first = token * EXPERTS;
    let slot = token * CHOICES;
    var top = 0.0;
    var inverse = 1.0;
    if (!SIGMOID || HAS_DLSE) {
        top = logits[first];
        for (var e = 1u; e < EXPERTS; e++) { top = max(top, logits[first + e]); }
        var z = 0.0;
        for (var e = 0u; e < EXPERTS; e++) { z += exp(max(logits[first + e] - top, -100.0)); }
        inverse = 1.0 / z;
    }
    // dchosen = factor · (dweight − middle)
    var factor = p.scale;
    var middle = 0.0;
    // Σ s dscore, of a softmax.
    var level = 0.0;
    if (HAS_DWEIGHTS) {
        var total = 0.0;
        var weighted = 0.0;
        for (var i = 0u; i < CHOICES; i++) {
            let score = score_of(logits[first + chosen_at(slot + i)], top, inverse);
            total += score;
            weighted += score * dweights[slot + i];
        }
        if (RENORMALISE) {
            total += 1e-20;
            // A single weight is `scale`, whatever the score.
            factor = select(p.scale / total, 0.0, CHOICES == 1u);
            middle = weighted / total;
        } else {
            level = p.scale * weighted;
        }
    }
    if (HAS_DSCORES && !SIGMOID) {
        for (var e = 0u; e < EXPERTS; e++) {
            level += score_of(logits[first + e], top, inverse) * dscores[first + e];
        }
    }
    var from_lse = 0.0;
    if (HAS_DLSE) { from_lse = dlse[token]; }
    for (var e = 0u; e < EXPERTS; e++) {
        let logit = logits[first + e];
        var dscore = 0.0;
        if (HAS_DSCORES) { dscore = dscores[first + e]; }
        var d = 0.0;
        if (HAS_DLSE || !SIGMOID) { d = exp(max(logit - top, -100.0)) * inverse; }
        if (SIGMOID) {
            d = d * from_lse + logistic(logit) * logistic(-logit) * dscore;
        } else {
            d *= from_lse + dscore - level;
        }
        dlogits[first + e] = d;
    }
    if (HAS_DWEIGHTS) {
        for (var i = 0u; i < CHOICES; i++) {
            let e = chosen_at(slot + i);
            let logit = logits[first + e];
            var slope = score_of(logit, top, inverse);
            if (SIGMOID) { slope *= logistic(-logit); }
            dlogits[first + e] += slope * factor * (dweights[slot + i] - middle);
        }
    }
}
