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
// needs     14 KiB of workgroup memory
// method    of the largest logits a list is made; where it has no room, or too small a share for top_p, limits are found over the row
// numerics  sums of w in f32, in a fixed order; the exponential's of the adapter

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
var<workgroup> found: u32;
var<workgroup> rest: f32;

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
    let by_count = top_k > 0u && top_k < p.vocabulary;
    let by_share = top_p < 1.0;
    var least = BANNED + 1u;
    var list = List(false, 0u, 0u, 0u, 0.0);
    if (by_count || by_share) {
        list = largest_of(row, lane, mine, select(MOST, top_k, by_count), !by_count, largest, scale);
        if (by_count) {
            least = max(least, few_by_count(list, top_k));
            least = limit_of(row, lane, select(p.vocabulary, 0u, list.whole), largest, scale, false, f32(top_k), least);
        }
        if (by_share) {
            let limit = few_by_share(list, top_p, least, by_count);
            list.whole = list.whole && limit > 0u;
            least = max(least, limit);
            least = limit_of(row, lane, select(p.vocabulary, 0u, list.whole), largest, scale, true, top_p, least);
        }
    }
    let listed = list.whole;
    let turns = select((max(p.vocabulary, lane) - lane + 255u) / 256u, list.own, listed);
    var sum = 0.0;
    for (var t = 0u; t < turns; t++) {
        let bits = x[row * p.vocabulary + token_of(lane, t, listed)];
        if (ordered(bits) >= least) {
            let w = weight(bits, largest, scale);
            sum += select(0.0, w, w >= min_p);
        }
    }
    weights[lane] = sum;
    workgroupBarrier();
    if (lane == 0u) {
        var whole = 0.0;
        for (var l = 0u; l < 256u; l++) { whole += weights[l]; }
        var left = u * whole;
        var chosen = 0u;
        var left_there = 0.0;
        for (var l = 0u; l < 256u; l++) {
            let part = weights[l];
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
    for (var t = 0u; t < turns; t++) {
        let i = token_of(lane, t, listed);
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
