// gate_workgroup: scores of experts, the best of them and their weights; one workgroup a token, one invocation an expert.
//
//   as gate_threads; an expert's rank is the number of better ones, so all find theirs at once
//
// in        logits (T, EXPERTS) f32   bias (EXPERTS) f32, not read unless BIASED
// out       weights (T, CHOICES) f32   experts (T, CHOICES) u32   scores (T, EXPERTS) f32   lse (T) f32; each only if WITH_…
// grid      one workgroup of LANES ≥ EXPERTS invocations for a token
// needs     the constants of gate_threads; common/gate; common/reduce_workgroup or reduce_subgroup;
//           8 LANES + 4 GROUPS bytes of workgroup memory
// numerics  the largest logit is subtracted first; sums in a fixed order
// paper     Shazeer et al., arXiv:1701.06538; groups and bias: DeepSeek-V3, arXiv:2412.19437

struct Params { base: u32, groups: u32, scale: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;           // (T, EXPERTS)
@group(0) @binding(2) var<storage, read> bias: array<f32>;             // (EXPERTS)
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;    // (T, CHOICES)
@group(0) @binding(4) var<storage, read_write> experts: array<u32>;    // (T, CHOICES)
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;     // (T, EXPERTS)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;        // (T)

const MEMBERS = EXPERTS / GROUPS;

var<workgroup> choices: array<f32, LANES>;
var<workgroup> keys: array<u32, LANES>;
var<workgroup> group_keys: array<u32, GROUPS>;

// The sum of the two best choices of a group.
fn group_choice(g: u32) -> f32 {
    var best = choices[g * MEMBERS];
    var second = 0.0;
    for (var e = 1u; e < MEMBERS; e++) {
        let choice = choices[g * MEMBERS + e];
        second = select(max(second, min(best, choice)), min(best, choice), e == 1u);
        best = max(best, choice);
    }
    return best + second;
}

@compute @workgroup_size(LANES)
fn gate_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let token = p.base + w.x + w.y * n.x;
    if (token >= p.groups) { return; }
    let inside = lane < EXPERTS;
    let expert = min(lane, EXPERTS - 1u);
    let logit = logits[token * EXPERTS + expert];
    var score = 0.0;
    if (!SIGMOID || WITH_LSE) {
        let top = max_over_workgroup(logit, lane);
        let e = select(0.0, exp(max(logit - top, -100.0)), inside);
        let z = sum_over_workgroup(e, lane);
        score = e / z;
        if (WITH_LSE && lane == 0u) { lse[token] = top + log(z); }
    }
    if (SIGMOID) { score = select(0.0, logistic(logit), inside); }
    if (WITH_SCORES && inside) { scores[token * EXPERTS + lane] = score; }
    if (!WITH_WEIGHTS && !WITH_EXPERTS) { return; }
    var choice = logit;
    if (BIASED) { choice = score + bias[expert]; } else if (GROUPS > 1u) { choice = score; }
    var key = order_key(choice);
    if (GROUPS > 1u) {
        choices[lane] = choice;
        workgroupBarrier();
        if (lane < GROUPS) { group_keys[lane] = order_key(group_choice(lane)); }
        workgroupBarrier();
        let own = expert / MEMBERS;
        var better = 0u;
        for (var g = 0u; g < GROUPS; g++) {
            better += u32(group_keys[g] > group_keys[own] || (group_keys[g] == group_keys[own] && g < own));
        }
        key = select(0u, key, better < TOP_GROUPS);
    }
    keys[lane] = key;
    workgroupBarrier();
    var rank = 0u;
    for (var e = 0u; e < EXPERTS; e++) {
        rank += u32(keys[e] > key || (keys[e] == key && e < lane));
    }
    let chosen = inside && rank < CHOICES;
    var factor = p.scale;
    if (WITH_WEIGHTS && RENORMALISE) { factor /= sum_over_workgroup(select(0.0, score, chosen), lane) + 1e-20; }
    if (chosen) {
        if (WITH_EXPERTS) { experts[token * CHOICES + rank] = lane; }
        if (WITH_WEIGHTS) { weights[token * CHOICES + rank] = score * factor; }
    }
}
