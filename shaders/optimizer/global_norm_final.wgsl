// global_norm_final: the Euclidean norm from sums of squares.
//
//   norm = sqrt(sum of partials), or NaN if a partial is negative (its elements were not all finite)
//
// in        partials (n) f32
// out       norm (1) f32, written as bits, so that NaN passes through no arithmetic
// grid      one workgroup
// needs     2 KiB of workgroup memory
// numerics  f32, fixed order: one chain an invocation, then a tree

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> partials: array<f32>;      // (n)
@group(0) @binding(2) var<storage, read_write> norm: array<u32>;    // (1)

var<workgroup> sums: array<f32, 256>;
var<workgroup> flags: array<u32, 256>;

@compute @workgroup_size(256)
fn global_norm_final(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    if (p.base + w.x + w.y * n.x >= p.groups) { return; }
    var sum = 0.0;
    var flag = 0u;
    for (var i = lane; i < p.count; i += 256u) {
        let partial = partials[i];
        sum += partial;
        flag |= select(0u, 1u, partial < 0.0);
    }
    sums[lane] = sum;
    flags[lane] = flag;
    for (var half = 128u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sums[lane] += sums[lane + half];
            flags[lane] |= flags[lane + half];
        }
    }
    if (lane == 0u) {
        norm[0] = select(bitcast<u32>(sqrt(max(sums[0], 0.0))), 0x7fc00000u, flags[0] != 0u);
    }
}
