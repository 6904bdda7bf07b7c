// gate_backward_workgroup: the gradient of a gate by its logits; one workgroup a token, one invocation an expert.
//
//   as gate_backward_threads
//
// in        logits (T, EXPERTS) f32   experts (T, CHOICES) u32   dweights (T, CHOICES) f32   dscores (T, EXPERTS) f32
//           dlse (T) f32; those without HAS_… are not read (experts goes with dweights)
// out       dlogits (T, EXPERTS) f32
// grid      one workgroup of LANES ≥ EXPERTS invocations for a token
// needs     the constants of gate_backward_threads; common/gate; common/reduce_workgroup or reduce_subgroup
// numerics  scores are computed anew; renormalised weights don't change with the scale of the scores, so their Σ s dscore is 0

struct Params { base: u32, groups: u32, scale: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;           // (T, EXPERTS)
@group(0) @binding(2) var<storage, read> experts: array<u32>;          // (T, CHOICES)
@group(0) @binding(3) var<storage, read> dweights: array<f32>;         // (T, CHOICES)
@group(0) @binding(4) var<storage, read> dscores: array<f32>;          // (T, EXPERTS)
@group(0) @binding(5) var<storage, read> dlse: array<f32>;             // (T)
@group(0) @binding(6) var<storage, read_write> dlogits: array<f32>;    // (T, EXPERTS)

@compute @workgroup_size(LANES)
fn gate_backward_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let token = p.base + w.x + w.y * n.x;
    if (token >= p.groups) { return; }
    let inside = lane < EXPERTS;
    let at = token * EXPERTS + min(lane, EXPERTS - 1u);
    let logit = logits[at];
    var share = 0.0;
    if (!SIGMOID || HAS_DLSE) {
        let top = max_over_workgroup(logit, lane);
        let e = select(0.0, exp(max(logit - top, -100.0)), inside);
        share = e / sum_over_workgroup(e, lane);
    }
    var score = share;
    if (SIGMOID) { score = select(0.0, logistic(logit), inside); }
    var dscore = 0.0;
    if (HAS_DSCORES) { dscore = dscores[at]; }
    var dchosen = 0.0;
    if (HAS_DWEIGHTS) {
        var chosen = false;
        var dweight = 0.0;
        for (var i = 0u; i < CHOICES; i++) {
            if (experts[token * CHOICES + i] == lane) {
                chosen = true;
                dweight = dweights[token * CHOICES + i];
            }
        }
        dchosen = p.scale * dweight;
        if (RENORMALISE) {
            let total = sum_over_workgroup(select(0.0, score, chosen), lane) + 1e-20;
            let middle = sum_over_workgroup(score * dweight, lane) / total;
            // A single weight is `scale`, whatever the score.
            dchosen = select(0.0, p.scale / total * (dweight - middle), chosen && CHOICES > 1u);
        }
    }
    var d = 0.0;
    if (SIGMOID) {
        d = score * logistic(-logit) * (dscore + dchosen);
    } else {
        var level = 0.0;
        if (HAS_DSCORES || !RENORMALISE) {
            level = sum_over_workgroup(score * (dscore + select(dchosen, 0.0, RENORMALISE)), lane);
        }
        d = score * (dscore + dchosen - level);
    }
    if (HAS_DLSE) { d += share * dlse[token]; }
    if (inside) { dlogits[at] = d; }
}
