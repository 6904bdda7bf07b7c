// radix_count: how often each digit occurs in each block of 256 keys.
//
//   counts[block, d] = #{i in block : digit(keys[i]) = d},  digit(k) = (k >> shift) & 255
//
// in        keys (count) u32; those above `limit` count as `limit`
// out       counts (blocks, 256) u32
// grid      one workgroup for each block of 256 keys
// needs     1 KiB of workgroup memory
// numerics  integers; the atomics add ones, so that their order is of no consequence

struct Params { base: u32, groups: u32, count: u32, shift: u32, limit: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> keys: array<u32>;            // (count)
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;    // (blocks, 256)

var<workgroup> histogram: array<atomic<u32>, 256>;

@compute @workgroup_size(256)
fn radix_count(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    atomicStore(&histogram[lane], 0u);
    workgroupBarrier();
    let i = group * 256u + lane;
    if (i < p.count) {
        atomicAdd(&histogram[(min(keys[i], p.limit) >> p.shift) & 255u], 1u);
    }
    workgroupBarrier();
    counts[group * 256u + lane] = atomicLoad(&histogram[lane]);
}
