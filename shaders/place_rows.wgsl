// place_rows: a matrix in which some rows are replaced by those of a smaller one, or are zeros.
//
//   out[n, c] = rows[inverse[n], c]  if inverse[n] < M,  else left[n, c]
//   out[n, c] = 0                    if inverse[n] < M,  else left[n, c]     with CLEAR
//
// in        left (N, C) f32   rows (M, C) f32, bound but not read with CLEAR   inverse (N) u32
// out       out (N, C) f32
// grid      one invocation for 1 element (4 where 4 divides C)
// needs     the constant CLEAR; common/elements4 or elements1, `count` and `width` in units of Element
// numerics  exact

struct Params { base: u32, groups: u32, count: u32, width: u32, rows: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> left: array<Element>;        // (N, C)
@group(0) @binding(2) var<storage, read> rows: array<Element>;        // (M, C)
@group(0) @binding(3) var<storage, read> inverse: array<u32>;         // (N)
@group(0) @binding(4) var<storage, read_write> out: array<Element>;   // (N, C)

@compute @workgroup_size(64)
fn place_rows(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let slot = inverse[row];
    if (slot >= p.rows) {
        out[i] = left[i];
    } else if (CLEAR) {
        out[i] = Element();
    } else {
        out[i] = rows[slot * p.width + i % p.width];
    }
}
