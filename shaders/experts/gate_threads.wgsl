// gate_threads: scores of experts, the best of them and their weights; one invocation a token.
//
//   score[e] = softmax(logits)[e], or 1 / (1 + e^−logit) with SIGMOID       lse = ln Σ e^logit
//   choice[e] = score[e] + bias[e]; the logit itself without bias and groups, which has the same order
//   a group's choice = the sum of its two best; the TOP_GROUPS best groups stay
//   experts[i] = the i-th best choice, of equals the lower index
//   weight[i] = scale · score[experts[i]], over (Σ of the chosen scores + 1e-20) with RENORMALISE
//
// in        logits (T, EXPERTS) f32   bias (EXPERTS) f32, not read unless BIASED
// out       weights (T, CHOICES) f32   experts (T, CHOICES) u32   scores (T, EXPERTS) f32   lse (T) f32; each only if WITH_…
// grid      workgroups of LANES tokens
// needs     the constants above, GROUPS (1 for none, up to 32); common/gate
// numerics  the largest logit is subtracted first; one round over the experts for each choice, ordered by integers
// paper     Shazeer et al., arXiv:1701.06538; groups and bias: DeepSeek-V3, arXiv:2412.19437

struct Params { base: u32, groups: u32, tokens: u32, scale: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;           // (T, EXPERTS)
@group(0) @binding(2) var<storage, read> bias: array<f32>;             // (EXPERTS)
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;    // (T, CHOICES)
@group(0) @binding(4) var<storage, read_write> experts: array<u32>;    // (T, CHOICES)
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;     // (T, EXPERTS)
@group(0) @binding(6) var<storage, read_write> lse: array<f32>;        // (T)

const MEMBERS = EXPERTS / GROUPS;

fn score_of(logit: f32, top: f32, inverse: f32) -> f32 {
    if (SIGMOID) { return logistic(logit); }
    return exp(max(logit - top, -100.0)) * inverse;
}

fn choice_of(first: u32, e: u32, top: f32, inverse: f32) -> f32 {
    let logit = logits[first + e];
    if (BIASED) { return score_of(logit, top, inverse) + bias[e]; }
    if (GROUPS > 1u) { return score_of(logit, top, inverse); }
    return logit;
}

// One bit for each group that stays.
fn best_groups(first: u32, top: f32, inverse: f32) -> u32 {
    var keys: array<u32, GROUPS>;
    for (var g = 0u; g < GROUPS; g++) {
        var best = choice_of(first, g * MEMBERS, top, inverse);
        var second = 0.0;
        for (var e = 1u; e < MEMBERS; e++) {
            let choice = choice_of(first, g * MEMBERS + e, top, inverse);
            second = select(max(second, min(best, choice)), min(best, choice), e == 1u);
            best = max(best, choice);
        }
        keys[g] = order_key(best + second);
    }
    var selected = 0u;
    for (var g = 0u; g < GROUPS; g++) {
        var better = 0u;
        for (var h = 0u; h < GROUPS; h++) {
            better += u32(keys[h] > keys[g] || (keys[h] == keys[g] && h < g));
        }
        selected |= select(0u, 1u << g, better < TOP_GROUPS);
    }
    return selected;
}

@compute @workgroup_size(LANES)
fn gate_threads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let token = group * LANES + lane;
    if (token >= p.tokens) { return; }
    let first = token * EXPERTS;
    var top = 0.0;
    var inverse = 1.0;
    if (!SIGMOID || WITH_LSE) {
        top = logits[first];
        for (var e = 1u; e < EXPERTS; e++) { top = max(top, logits[first + e]); }
        var z = 0.0;
        for (var e = 0u; e < EXPERTS; e++) { z += exp(max(logits[first + e] - top, -100.0)); }
        inverse = 1.0 / z;
        if (WITH_LSE) { lse[token] = top + log(z); }
    }
    if (WITH_SCORES) {
        for (var e = 0u; e < EXPERTS; e++) { scores[first + e] = score_of(logits[first + e], top, inverse); }
    }
    if (!WITH_WEIGHTS && !WITH_EXPERTS) { return; }
    var selected = 1u;
    if (GROUPS > 1u) { selected = best_groups(first, top, inverse); }
    let slot = token * CHOICES;
    var chosen = 0.0;
    // The last choice: the next is the best of what comes behind it in the order of keys and indices.
    var last_key = 0u;
    var last = 0u;
    for (var i = 0u; i < CHOICES; i++) {
        var best_key = 0u;
        var best = EXPERTS;
        for (var e = 0u; e < EXPERTS; e++) {
            let key = order_key(choice_of(first, e, top, inverse));
            let left = i == 0u || key < last_key || (key == last_key && e > last);
            let stays = ((selected >> (e / MEMBERS)) & 1u) == 1u;
            if (left && stays && (best == EXPERTS || key > best_key)) {
                best_key = key;
                best = e;
            }
        }
        best = min(best, EXPERTS - 1u);
        last_key = best_key;
        last = best;
        if (WITH_EXPERTS) { experts[slot + i] = best; }
        if (WITH_WEIGHTS) {
            let score = score_of(logits[first + best], top, inverse);
            chosen += score;
            weights[slot + i] = score * p.scale;
        }
    }
    if (WITH_WEIGHTS && RENORMALISE) {
        let share = 1.0 / (chosen + 1e-20);
        for (var i = 0u; i < CHOICES; i++) { weights[slot + i] *= share; }
    }
}
