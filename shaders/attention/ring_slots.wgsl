// ring_slots: where a ring that holds the last tokens of each row keeps new ones, and how many it holds then.
//
//   slots[b, t] = positions[b, t] mod ring  where lengths[b] − ring ≤ positions[b, t] < lengths[b],  else NONE
//   held[b] = min(lengths[b], ring)
//
// in        positions (B, T) u32   lengths (B) u32, tokens of a row, new ones included
// out       slots (B, T) u32   held (B) u32
// grid      one invocation for a token
// numerics  integers

struct Params { base: u32, groups: u32, count: u32, tokens: u32, ring: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> positions: array<u32>;        // (B, T)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;          // (B)
@group(0) @binding(3) var<storage, read_write> slots: array<u32>;      // (B, T)
@group(0) @binding(4) var<storage, read_write> held: array<u32>;       // (B)

const NONE: u32 = 0xffffffffu;

@compute @workgroup_size(64)
fn ring_slots(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let row = index / p.tokens;
    let length = lengths[row];
    let position = positions[index];
    let inside = position < length && length - position <= p.ring;
    slots[index] = select(NONE, position % p.ring, inside);
    if (index % p.tokens == 0u) { held[row] = min(length, p.ring); }
}
