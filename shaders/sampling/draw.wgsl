// draw: a token for each row of logits, the likeliest or one drawn by its probability.
//
//   choices[n] = scale, top_k, top_p, min_p, u (f32 as their bits, top_k as it is)
//   scale = 0   out[n] = the first of the largest x[n, i]
//   else        w_i = e^((x[n, i] − m) scale), m the largest logit of the row. There stay the top_k largest (0: all), of these the
//               smallest number of largest ones that have top_p of the sum of their w, of these those with w ≥ min_p; of equal logits
//               all stay or none. out[n] = the i where the sum of w, in the order of (i mod 256, i), exceeds u times the whole
//   Banned logits (at or below −3e38) never come. NONE where a logit is not finite, NONE − 1 where all are banned.
//
// in        x (N, V) f32, as bits   choices (N, 5) u32
// out       out (N) u32
// grid      one workgroup for a row
// needs     10 KiB of workgroup memory
// numerics  sums of w in f32, in a fixed order; the exponential's of the adapter
//
// A limit on logits is found three bits of its key at a time: each step sums over what lies above eight limits at once.
// The number of steps is a parameter, so that compilers do not unroll them with their barriers.

struct Params { base: u32, groups: u32, vocabulary: u32, steps: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;            // (N, V): bits of f32
@group(0) @binding(2) var<storage, read> choices: array<u32>;      // (N, 5)
@group(0) @binding(3) var<storage, read_write> out: array<u32>;    // (N)

const NONE: u32 = 0xffffffffu;
// The key of −3e38.
const BANNED: u32 = 0x009e4e19u;

var<workgroup> top: atomic<u32>;
var<workgroup> first: atomic<u32>;
var<workgroup> damaged: atomic<u32>;
var<workgroup> parts: array<f32, 2048>;
var<workgroup> chunks: array<f32, 64>;
var<workgroup> found: u32;
var<workgroup> rest: f32;

// The order of f32 as that of u32; both zeros are one key.
fn ordered(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn weight(bits: u32, largest: f32, scale: f32) -> f32 {
    return exp(max((bitcast<f32>(bits) - largest) * scale, -100.0));
}

// The highest limit of keys, from `least` on, above which there are `target` tokens, or with by_mass that share of the sum of w.
fn limit_of(row: u32, lane: u32, largest: f32, scale: f32, by_mass: bool, goal: f32, least: u32) -> u32 {
    var target_sum = goal;
    var limit = 0u;
    for (var step = 0u; step < p.steps; step++) {
        let shift = 30u - 3u * step;
        var low: array<u32, 8>;
        for (var j = 0u; j < 8u; j++) {
            // The highest three bits are only two.
            low[j] = select(limit | (j << shift), NONE, step == 0u && j > 3u);
        }
        let low_a = vec4u(low[0], low[1], low[2], low[3]);
        let low_b = vec4u(low[4], low[5], low[6], low[7]);
        var sum_a = vec4f(0.0);
        var sum_b = vec4f(0.0);
        for (var i = lane; i < p.vocabulary; i += 256u) {
            let bits = x[row * p.vocabulary + i];
            let key = ordered(bits);
            if (key < least) { continue; }
            var w = 1.0;
            if (by_mass) { w = weight(bits, largest, scale); }
            sum_a += select(vec4f(0.0), vec4f(w), vec4u(key) >= low_a);
            sum_b += select(vec4f(0.0), vec4f(w), vec4u(key) >= low_b);
        }
        parts[lane] = sum_a.x;
        parts[256u + lane] = sum_a.y;
        parts[512u + lane] = sum_a.z;
        parts[768u + lane] = sum_a.w;
        parts[1024u + lane] = sum_b.x;
        parts[1280u + lane] = sum_b.y;
        parts[1536u + lane] = sum_b.z;
        parts[1792u + lane] = sum_b.w;
        workgroupBarrier();
        if (lane < 64u) {
            var sum = 0.0;
            for (var i = 0u; i < 32u; i++) { sum += parts[lane * 32u + i]; }
            chunks[lane] = sum;
        }
        workgroupBarrier();
        var digit = 0u;
        for (var j = 0u; j < 8u; j++) {
            var sum = 0.0;
            for (var i = 0u; i < 8u; i++) { sum += chunks[j * 8u + i]; }
            if (step == 0u && j == 0u && by_mass) { target_sum = goal * sum; }
            if (sum >= target_sum) { digit = j; }
        }
        limit |= digit << shift;
        workgroupBarrier();
    }
    return max(limit, least);
}

@compute @workgroup_size(256)
fn draw(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    if (lane == 0u) {
        atomicStore(&top, 0u);
        atomicStore(&first, NONE);
        atomicStore(&damaged, 0u);
    }
    workgroupBarrier();
    var mine = 0u;
    var place = 0u;
    for (var i = lane; i < p.vocabulary; i += 256u) {
        let bits = x[row * p.vocabulary + i];
        if ((bits & 0x7f800000u) == 0x7f800000u) { atomicStore(&damaged, 1u); }
        let key = ordered(bits);
        if (key > mine) {
            mine = key;
            place = i;
        }
    }
    atomicMax(&top, mine);
    workgroupBarrier();
    let best = atomicLoad(&top);
    if (mine == best) { atomicMin(&first, place); }
    workgroupBarrier();
    let likeliest = atomicLoad(&first);
    let usable = best > BANNED && atomicLoad(&damaged) == 0u;
    var verdict = likeliest;
    if (best <= BANNED) { verdict = NONE - 1u; }
    if (atomicLoad(&damaged) == 1u) { verdict = NONE; }
    let scale = bitcast<f32>(choices[row * 5u]);
    let top_k = choices[row * 5u + 1u];
    let top_p = bitcast<f32>(choices[row * 5u + 2u]);
    let min_p = bitcast<f32>(choices[row * 5u + 3u]);
    let u = bitcast<f32>(choices[row * 5u + 4u]);
    if (!(scale > 0.0)) {
        if (lane == 0u) { out[row] = verdict; }
        return;
    }
    // The rest runs on rows that are damaged or banned as well, so that all invocations meet at its barriers.
    let largest = bitcast<f32>(x[row * p.vocabulary + min(likeliest, p.vocabulary - 1u)]);
    var least = BANNED + 1u;
    if (top_k > 0u && top_k < p.vocabulary) {
        least = limit_of(row, lane, largest, scale, false, f32(top_k), least);
    }
    if (top_p < 1.0) { least = limit_of(row, lane, largest, scale, true, top_p, least); }
    var sum = 0.0;
    for (var i = lane; i < p.vocabulary; i += 256u) {
        let bits = x[row * p.vocabulary + i];
        if (ordered(bits) >= least) {
            let w = weight(bits, largest, scale);
            sum += select(0.0, w, w >= min_p);
        }
    }
    parts[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        var whole = 0.0;
        for (var l = 0u; l < 256u; l++) { whole += parts[l]; }
        var left = u * whole;
        var chosen = 0u;
        var left_there = 0.0;
        for (var l = 0u; l < 256u; l++) {
            let part = parts[l];
            // The last one that has any, should rounding leave something.
            if (part > 0.0 && left >= 0.0) {
                chosen = l;
                left_there = left;
            }
            left -= part;
        }
        found = chosen;
        rest = left_there;
    }
    workgroupBarrier();
    if (!usable && lane == 0u) { out[row] = verdict; }
    if (!usable || lane != found) { return; }
    var left = rest;
    var token = likeliest;
    for (var i = lane; i < p.vocabulary; i += 256u) {
        let bits = x[row * p.vocabulary + i];
        if (ordered(bits) >= least) {
            let w = weight(bits, largest, scale);
            if (w >= min_p && left >= 0.0 && w > 0.0) {
                token = i;
                left -= w;
            }
        }
    }
    out[row] = token;
}
