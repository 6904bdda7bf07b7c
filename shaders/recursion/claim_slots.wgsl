// claim_slots: the next free slots of caches in which tokens lie side by side, and how many of them new tokens see.
//
//   first = used[b R], or 0 with FRESH;  slots[b, k] = first + k  if k < counts[b],  else NONE
//   used[b R] ← first + counts[b];  lengths[b] = first + counts[b], or 0 if there are no new tokens
//
// in        counts (B) u32
// in, out   used (B R) u32, in place: every R-th one
// out       slots (B, K) u32   lengths (B) u32
// grid      one workgroup of 64 invocations for a row
// needs     the constant FRESH
// numerics  integers

struct Params { base: u32, groups: u32, per_row: u32, stride: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> counts: array<u32>;          // (B)
@group(0) @binding(2) var<storage, read_write> used: array<u32>;      // (B R)
@group(0) @binding(3) var<storage, read_write> slots: array<u32>;     // (B, K)
@group(0) @binding(4) var<storage, read_write> lengths: array<u32>;   // (B)

@compute @workgroup_size(64)
fn claim_slots(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let count = counts[row];
    var first = 0u;
    if (!FRESH) { first = used[row * p.stride]; }
    for (var k = lane; k < p.per_row; k += 64u) {
        slots[row * p.per_row + k] = select(0xffffffffu, first + k, k < count);
    }
    // All invocations have read `used` before it changes.
    storageBarrier();
    if (lane == 0u) {
        used[row * p.stride] = first + count;
        // A row without new tokens attends to no keys.
        lengths[row] = select(0u, first + count, count > 0u);
    }
}
