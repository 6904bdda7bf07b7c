// select_rows: which candidates of each row stay: the largest, those from a threshold on, or those in a range.
//
//   MODE 0    taken[b, i] = key[b, i] is among the k largest f32 of row b; of equal keys the first ones;
//             k = `low`, or min(`low`, most[`entry`]) with the flag of most
//   MODE 1    taken[b, i] = key[b, i] ≥ the f32 whose bits are `low`
//   MODE 2    taken[b, i] = low ≤ key[b, i] ≤ high, u32
//   inverse[b, i] = b K + #{j < i taken}, or NONE;  index[inverse[b, i]] = b N + i;  picked likewise;  counts[b] = #taken
//
// in        keys (B, N): bits of f32 or u32   lengths (B) u32: candidates from there on are not taken
//           positions (B, N) u32   most (R) u32   with the flag 0 they are not read, and position i is i
// out       index (B, K) u32, NONE in slots that are not used   inverse (B, N) u32   picked (B, K) u32, 0 in unused slots
//           counts (B) u32
// grid      one workgroup for a row
// needs     the constant MODE; 3 KiB of workgroup memory
// numerics  integers; the atomics add ones, so that their order is of no consequence
//
// MODE 0 finds the key of rank k digit by digit, 8 bits at a time (radix select). One scan then numbers the taken candidates,
// over over the workgroup, each invocation counting a run of neighbours.

struct Params {
    base: u32, groups: u32,
    candidates: u32, slots: u32,              // N, K
    low: u32, high: u32,
    has_lengths: u32, has_positions: u32,
    has_most: u32, entry: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;            // (B, N)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;         // (B)
@group(0) @binding(3) var<storage, read> positions: array<u32>;       // (B, N)
@group(0) @binding(4) var<storage, read> most: array<u32>;            // (R)
@group(0) @binding(5) var<storage, read_write> index: array<u32>;     // (B, K)
@group(0) @binding(6) var<storage, read_write> inverse: array<u32>;   // (B, N)
@group(0) @binding(7) var<storage, read_write> picked: array<u32>;    // (B, K)
@group(0) @binding(8) var<storage, read_write> counts: array<u32>;    // (B)

const NONE: u32 = 0xffffffffu;

var<workgroup> histogram: array<atomic<u32>, 256>;
var<workgroup> pairs: array<vec2u, 256>;
var<workgroup> found: vec2u;

fn key_of(i: u32) -> u32 {
    if (MODE == 2u) { return keys[i]; }
    return ordered(keys[i]);
}

// The sums of `mine` over all invocations up to this one; the last entry of `pairs` is the sum over all.
fn scan(mine: vec2u, lane: u32) -> vec2u {
    pairs[lane] = mine;
    workgroupBarrier();
    for (var step = 1u; step < 256u; step *= 2u) {
        var before = vec2u(0u);
        if (lane >= step) { before = pairs[lane - step]; }
        workgroupBarrier();
        pairs[lane] += before;
        workgroupBarrier();
    }
    return pairs[lane];
}

@compute @workgroup_size(256)
fn select_rows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.candidates;
    var length = p.candidates;
    if (p.has_lengths != 0u) { length = min(length, lengths[row]); }
    // Keys above `above` are taken, and the first `ties` of those equal to `equal`.
    var equal = 0u;
    var ties = min(p.low, length);
    if (MODE == 0u) {
        if (p.has_most != 0u) { ties = min(ties, most[p.entry]); }
        // No key has rank 0: there are no candidates.
        if (ties == 0u) { length = 0u; }
        for (var step = 0u; step < 4u; step++) {
            let shift = 24u - 8u * step;
            atomicStore(&histogram[lane], 0u);
            workgroupBarrier();
            for (var i = lane; i < length; i += 256u) {
                let key = key_of(first + i);
                // The digits before this one agree with what was found.
                if (step == 0u || ((key ^ equal) >> (shift + 8u)) == 0u) {
                    atomicAdd(&histogram[(key >> shift) & 255u], 1u);
                }
            }
            workgroupBarrier();
            // Digits from the largest down: where the rank that is wanted falls.
            let digit = 255u - lane;
            let here = atomicLoad(&histogram[digit]);
            let through = scan(vec2u(here, 0u), lane).x;
            if (here > 0u && through >= ties && through - here < ties) {
                found = vec2u(digit, ties - (through - here));
            }
            workgroupBarrier();
            equal |= found.x << shift;
            ties = found.y;
            workgroupBarrier();
        }
    }
    let run = (p.candidates + 255u) / 256u;
    let begin = min(lane * run, p.candidates);
    let end = min(begin + run, p.candidates);
    var mine = vec2u(0u);
    for (var i = begin; i < end; i++) {
        mine += verdict(key_of(first + i), i < length, equal);
    }
    var before = scan(mine, lane) - mine;
    let all = pairs[255];
    let total = all.x + min(all.y, ties);
    for (var i = begin; i < end; i++) {
        let sees = verdict(key_of(first + i), i < length, equal);
        let slot = before.x + min(before.y, ties);
        before += sees;
        var at = NONE;
        if (slot < p.slots && (sees.x == 1u || (sees.y == 1u && before.y <= ties))) {
            at = row * p.slots + slot;
            index[at] = first + i;
            var position = i;
            if (p.has_positions != 0u) { position = positions[first + i]; }
            picked[at] = position;
        }
        inverse[first + i] = at;
    }
    for (var slot = total + lane; slot < p.slots; slot += 256u) {
        index[row * p.slots + slot] = NONE;
        picked[row * p.slots + slot] = 0u;
    }
    if (lane == 0u) { counts[row] = min(total, p.slots); }
}

// (1, 0) for a candidate that is taken, (0, 1) for one that is if there is room among its equals.
fn verdict(key: u32, inside: bool, equal: u32) -> vec2u {
    switch (MODE) {
        case 0u: { return vec2u(select(0u, 1u, inside && key > equal), select(0u, 1u, inside && key == equal)); }
        case 1u: { return vec2u(select(0u, 1u, inside && key >= ordered(p.low)), 0u); }
        default: { return vec2u(select(0u, 1u, inside && key >= p.low && key <= p.high), 0u); }
    }
}
