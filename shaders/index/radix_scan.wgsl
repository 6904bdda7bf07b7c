// radix_scan: where the keys of each digit of each block begin in the sorted order.
//
//   counts[block, d] ← Σ counts of all smaller digits  +  Σ_{b < block} counts[b, d]
//
// in, out   counts (blocks, 256) u32, in place
// grid      one workgroup: invocation d walks the blocks of digit d
// needs     1 KiB of workgroup memory
// numerics  integers

struct Params { base: u32, groups: u32, blocks: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;   // (blocks, 256)

var<workgroup> totals: array<u32, 256>;

@compute @workgroup_size(256)
fn radix_scan(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    var total = 0u;
    for (var block = 0u; block < p.blocks; block++) {
        total += counts[block * 256u + lane];
    }
    totals[lane] = total;
    workgroupBarrier();
    // An inclusive scan over the digits in eight doubling steps.
    for (var step = 1u; step < 256u; step *= 2u) {
        var before = 0u;
        if (lane >= step) { before = totals[lane - step]; }
        workgroupBarrier();
        totals[lane] += before;
        workgroupBarrier();
    }
    var next = totals[lane] - total;
    for (var block = 0u; block < p.blocks; block++) {
        let count = counts[block * 256u + lane];
        counts[block * 256u + lane] = next;
        next += count;
    }
}
