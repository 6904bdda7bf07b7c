// cache_place: where the keys and values of new tokens go in the caches.
//
// in     positions (B, T) u32, distinct within a batch row, at binding 3

struct Params { base: u32, groups: u32, count: u32, tokens: u32, stride: u32, slots: u32, row: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(3) var<storage, read> positions: array<u32>;        // (B, T)

const NOWHERE = 0xffffffffu;

// The place of an invocation's part of the new rows, in parts; NOWHERE if there is no such part, or its position is not in the cache.
fn place(index: u32) -> u32 {
    if (index >= p.count) { return NOWHERE; }
    let token = index / p.row;
    let position = positions[token];
    return select((token / p.tokens * p.stride + position) * p.row + index % p.row, NOWHERE, position >= p.slots);
}
