// global_norm_partials: sums of squares of a flat range, one for each 4096 elements.
//
//   partials[first + group] = sum of flat[i]^2 over the group's elements, or -1 if one of them is not finite
//
// in        flat (4 n) f32 as vec4
// out       partials (groups of all flat ranges) f32, written from `first` on
// grid      one workgroup for 1024 vectors, 16 for an invocation
// needs     512 bytes of workgroup memory
// numerics  f32, fixed order: four chains an invocation, then a tree. An element of 2^47 or more counts as not finite:
//           below that, squares of 2^32 elements can't overflow.

struct Params { base: u32, groups: u32, vectors: u32, first: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> flat_: array<vec4f>;          // (vectors)
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;   // (all groups)

const LARGEST = 0x57000000u;   // 2^47

var<workgroup> sums: array<f32, 64>;
var<workgroup> flags: array<u32, 64>;

@compute @workgroup_size(64)
fn global_norm_partials(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let end = min(group * 1024u + 1024u, p.vectors);
    var squares = vec4f();
    var large = vec4<bool>();
    for (var i = group * 1024u + lane; i < end; i += 64u) {
        let x = flat_[i];
        let out_of_range = (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) >= vec4u(LARGEST);
        let y = select(x, vec4f(), out_of_range);
        squares += y * y;
        large |= out_of_range;
    }
    sums[lane] = (squares.x + squares.y) + (squares.z + squares.w);
    flags[lane] = select(0u, 1u, any(large));
    for (var half = 32u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sums[lane] += sums[lane + half];
            flags[lane] |= flags[lane + half];
        }
    }
    if (lane == 0u) {
        partials[p.first + group] = select(sums[0], -1.0, flags[0] != 0u);
    }
}
