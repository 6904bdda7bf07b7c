// attention_key_limits: one tensor of each query's first key and key limit, the mask of padding, the seed and spans, from up to seven inputs.
//
//   limit[b, i] = min(lengths[b], range[b, i].end, keys, max(position[b, i] + after + 1, prefix[b]))
//   start[b, i] = max(position[b, i] - before, range[b, i].first)
//   the same of a tile of 32 queries: their largest limit, their least start
//
// in        lengths (B) u32   key_mask (B, Tk) u32   positions (B, Tq) u32, or ranges (B, Tq, 2) u32
//           query_tree (B, Tq, 3) u32
//           tree (B, Tk, 3) u32   seed (2) u32   prefix (B) u32; what is absent has its flag 0 and is not read
// out       key_limits (B, n) u32, in a row: ceil(Tq / 32) limits of tiles, Tq limits [, as many starts of tiles, Tq starts]
//           [, mask (Tk) as 0 or 1] [, seed (2)] [, spans (3 (Tq + Tk))]
// grid      one invocation for 32 queries, 32 keys of the mask, 32 spans of queries or 32 spans of keys
// numerics  exact
//
// Without positions, query i stands at i + Tk - Tq. A span is three words: the token's position, the first and
// the last position of its span.

struct Params {
    base: u32, groups: u32,
    batch: u32, queries: u32, keys: u32,
    causal: u32, has_lengths: u32, has_mask: u32, has_positions: u32, has_tree: u32, has_seed: u32, has_prefix: u32,
    windowed: u32, before: u32, after: u32,          // how far in front of itself and behind itself a query sees
    has_ranges: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> lengths: array<u32>;          // (B)
@group(0) @binding(2) var<storage, read> key_mask: array<u32>;         // (B, Tk)
@group(0) @binding(3) var<storage, read> positions: array<u32>;        // (B, Tq), or ranges (B, Tq, 2)
@group(0) @binding(4) var<storage, read> query_tree: array<u32>;       // (B, Tq, 3)
@group(0) @binding(5) var<storage, read> tree: array<u32>;             // (B, Tk, 3)
@group(0) @binding(6) var<storage, read> seed: array<u32>;             // (2)
@group(0) @binding(7) var<storage, read> prefix: array<u32>;           // (B)
@group(0) @binding(8) var<storage, read_write> key_limits: array<u32>;    // (B, n)

// The first key that a query sees.
fn start(batch: u32, query: u32) -> u32 {
    var begin = 0u;
    if (p.has_positions != 0u) {
        begin = min(max(positions[batch * p.queries + query], p.before) - p.before, p.keys);
    } else if (p.windowed != 0u) {
        begin = max(query + p.keys, p.queries + p.before) - (p.queries + p.before);
    }
    if (p.has_ranges != 0u) { begin = max(begin, min(positions[2u * (batch * p.queries + query)], p.keys)); }
    return begin;
}

// Behind the last key that a query sees.
fn limit(batch: u32, query: u32) -> u32 {
    var end = p.keys;
    if (p.has_positions != 0u) {
        end = min(end, min(positions[batch * p.queries + query], p.keys) + p.after + 1u);
    } else if (p.causal != 0u || p.windowed != 0u) {
        end = min(end, max(query + p.keys + p.after + 1u, p.queries) - p.queries);
    }
    if (p.has_prefix != 0u) { end = max(end, min(prefix[batch], p.keys)); }
    if (p.has_ranges != 0u) { end = min(end, positions[2u * (batch * p.queries + query) + 1u]); }
    if (p.has_lengths != 0u) { end = min(end, lengths[batch]); }
    return end;
}

@compute @workgroup_size(64)
fn attention_key_limits(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                     @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.queries + 31u) / 32u;
    let blocks = (p.keys + 31u) / 32u;
    let masks = select(0u, blocks, p.has_mask != 0u);
    let chunks = tiles + masks + select(0u, tiles + blocks, p.has_tree != 0u);
    let index = group * 64u + lane;
    if (index >= p.batch * chunks) { return; }
    let batch = index / chunks;
    let chunk = index % chunks;
    let starts = p.windowed != 0u || p.has_ranges != 0u;
    let starts_at = tiles + p.queries;
    let mask_at = starts_at * select(1u, 2u, starts);
    let seed_at = mask_at + select(0u, p.keys, p.has_mask != 0u);
    let spans_at = seed_at + select(0u, 2u, p.has_seed != 0u);
    let words = spans_at + select(0u, 3u * (p.queries + p.keys), p.has_tree != 0u);
    let row = batch * words;
    if (chunk < tiles) {
        var most = 0u;
        var least = p.keys;
        for (var i = chunk * 32u; i < min(chunk * 32u + 32u, p.queries); i++) {
            let end = limit(batch, i);
            key_limits[row + tiles + i] = end;
            most = max(most, end);
            if (starts) {
                let begin = start(batch, i);
                key_limits[row + starts_at + tiles + i] = begin;
                least = min(least, begin);
            }
        }
        key_limits[row + chunk] = most;
        if (starts) { key_limits[row + starts_at + chunk] = least; }
        if (chunk == 0u && p.has_seed != 0u) {
            key_limits[row + seed_at] = seed[0];
            key_limits[row + seed_at + 1u] = seed[1];
        }
    } else if (chunk < tiles + masks) {
        let first = (chunk - tiles) * 32u;
        for (var key = first; key < min(first + 32u, p.keys); key++) {
            key_limits[row + mask_at + key] = u32(key_mask[batch * p.keys + key] != 0u);
        }
    } else if (chunk < tiles + masks + tiles) {
        let first = (chunk - tiles - masks) * 96u;
        for (var i = first; i < min(first + 96u, 3u * p.queries); i++) {
            key_limits[row + spans_at + i] = query_tree[batch * 3u * p.queries + i];
        }
    } else {
        let first = (chunk - tiles - masks - tiles) * 96u;
        for (var i = first; i < min(first + 96u, 3u * p.keys); i++) {
            key_limits[row + spans_at + 3u * p.queries + i] = tree[batch * 3u * p.keys + i];
        }
    }
}
