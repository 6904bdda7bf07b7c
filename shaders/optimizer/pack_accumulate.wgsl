// pack_accumulate: adds one tensor to its place in a flat range, or overwrites it there.
//
//   flat[i] = part[i] + (keep ? flat[i] : 0)
//
// in        part (n) f32   keep (1) f32: 0 overwrites, anything else adds
// out       flat (n) f32: the part's window of the flat range; what lies around it is not touched
// grid      256 elements for a workgroup, 4 for an invocation, 64 apart
// numerics  one rounding; the old values are dropped, not multiplied by zero, so NaN does not survive

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> part: array<f32>;          // (n)
@group(0) @binding(2) var<storage, read> keep: array<f32>;          // (1)
@group(0) @binding(3) var<storage, read_write> flat_: array<f32>;   // (n)

@compute @workgroup_size(64)
fn pack_accumulate(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let first = group * 256u + lane;
    let end = min(group * 256u + 256u, p.count);
    let adds = keep[0] != 0.0;
    for (var i = first; i < end; i += 64u) {
        if (adds) {
            flat_[i] += part[i];
        } else {
            flat_[i] = part[i];
        }
    }
}
