// draw_few: the largest logits of a row in a list, and limits among them, so that the row is read once for both.
//
// use       largest_of(row, lane, mine, wanted, weigh, largest, scale): the List of `wanted` of the largest logits and a few more, `mine` being
//           the largest key of the invocation; with weigh the sum of the row's weights, too
//           few_by_count(list, wanted), few_by_share(list, share, least, by_list): the highest limit of keys above which there are `wanted`
//           tokens of the list, or that share of the sum of the weights (with by_list of those in the list from `least` on, else of the
//           row's); 0 if none has
//           token_of(lane, t, listed): token number t of those of an invocation, of its list or of the whole row
//           All under uniform control. The words `parts` hold the list until they are used for something else
//
// At least K tokens reach the Kth of the largest keys of the 256 invocations, so that those that reach it have the K largest; where these are
// anywhere in the row, they are 256 ln(256 / (256 − K)) on average. The kernel has what draw_limit needs, BANNED, and draw_limit in front.

// The most tokens listed of an invocation, and of the row.
const ROOM: u32 = 8u;
const FEW: u32 = 512u;
// The most of the largest that are listed.
const MOST: u32 = 128u;

var<workgroup> bound: u32;
var<workgroup> highest: atomic<u32>;
var<workgroup> counts: array<u32, 256>;
var<workgroup> keys: array<u32, FEW>;
var<workgroup> weights: array<f32, FEW>;

// whole: it has all that were wanted; own tokens of this invocation, the first at start, of count; sum: of the weights of the row.
struct List { whole: bool, own: u32, start: u32, count: u32, sum: f32 }

fn token_of(lane: u32, t: u32, listed: bool) -> u32 {
    return select(lane + 256u * t, parts[lane * ROOM + min(t, ROOM - 1u)], listed);
}

fn largest_of(row: u32, lane: u32, mine: u32, wanted: u32, weigh: bool, largest: f32, scale: f32) -> List {
    counts[lane] = mine;
    workgroupBarrier();
    var above = 0u;
    for (var l = 0u; l < 256u; l++) {
        let other = counts[l];
        above += select(0u, 1u, other > mine || (other == mine && l < lane));
    }
    if (above + 1u == min(wanted, MOST)) { bound = max(mine, BANNED + 1u); }
    workgroupBarrier();
    let lowest = bound;
    var own = 0u;
    var sum = 0.0;
    for (var i = lane; i < p.vocabulary; i += 256u) {
        let bits = x[row * p.vocabulary + i];
        let key = ordered(bits);
        if (key >= lowest) {
            if (own < ROOM) { parts[lane * ROOM + own] = i; }
            own++;
        }
        if (weigh && key > BANNED) { sum += weight(bits, largest, scale); }
    }
    counts[lane] = own;
    weights[lane] = sum;
    workgroupBarrier();
    var list = List(wanted <= MOST, own, 0u, 0u, 0.0);
    for (var l = 0u; l < 256u; l++) {
        let there = counts[l];
        list.whole = list.whole && there <= ROOM;
        list.start += select(0u, there, l < lane);
        list.count += there;
        list.sum += weights[l];
    }
    list.whole = list.whole && list.count <= FEW;
    list.own = select(0u, list.own, list.whole);
    list.count = select(0u, list.count, list.whole);
    workgroupBarrier();
    for (var t = 0u; t < list.own; t++) {
        let bits = x[row * p.vocabulary + parts[lane * ROOM + t]];
        keys[list.start + t] = ordered(bits);
        weights[list.start + t] = weight(bits, largest, scale);
    }
    atomicStore(&highest, 0u);
    workgroupBarrier();
    return list;
}

fn few_by_count(list: List, wanted: u32) -> u32 {
    for (var t = 0u; t < list.own; t++) {
        let key = keys[list.start + t];
        var count = 0u;
        for (var s = 0u; s < list.count; s++) { count += select(0u, 1u, keys[s] >= key); }
        if (count >= wanted) { atomicMax(&highest, key); }
    }
    return found_limit();
}

fn few_by_share(list: List, share: f32, least: u32, by_list: bool) -> u32 {
    var all = select(list.sum, 0.0, by_list);
    for (var s = 0u; s < list.count; s++) { all += select(0.0, weights[s], by_list && keys[s] >= least); }
    for (var t = 0u; t < list.own; t++) {
        let key = keys[list.start + t];
        var sum = 0.0;
        for (var s = 0u; s < list.count; s++) { sum += select(0.0, weights[s], keys[s] >= key); }
        if (key >= least && sum >= share * all) { atomicMax(&highest, key); }
    }
    return found_limit();
}

// The highest key that was found, which is then forgotten.
fn found_limit() -> u32 {
    workgroupBarrier();
    let limit = atomicLoad(&highest);
    workgroupBarrier();
    atomicStore(&highest, 0u);
    workgroupBarrier();
    return limit;
}
