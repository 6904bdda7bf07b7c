// place_rows: a matrix of which some rows are cleared, and to some of which the rows of a smaller matrix are added.
//
//   out[n, c] = left[n, c]             unless CLEARS and cleared[n] < limit
//             + rows[inverse[n], c]    if GATHERS and inverse[n] < M
//
// in        left (N, C) f32   rows (M, C) f32   cleared, inverse (N) u32; what a constant rules out is bound but not read
// out       out (N, C) f32
// grid      one invocation for 1 element (4 where 4 divides C)
// needs     the constants CLEARS, GATHERS; common/elements4 or elements1, `count` and `width` in units of Element
// numerics  one rounding where a row is added to one that was not cleared, else exact

struct Params { base: u32, groups: u32, count: u32, width: u32, rows: u32, limit: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> left: array<Element>;        // (N, C)
@group(0) @binding(2) var<storage, read> rows: array<Element>;        // (M, C)
@group(0) @binding(3) var<storage, read> cleared: array<u32>;         // (N)
@group(0) @binding(4) var<storage, read> inverse: array<u32>;         // (N)
@group(0) @binding(5) var<storage, read_write> out: array<Element>;   // (N, C)

@compute @workgroup_size(64)
fn place_rows(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    var stays = true;
    if (CLEARS) { stays = cleared[row] >= p.limit; }
    var value: Element;
    if (stays) { value = left[i]; }
    if (GATHERS) {
        let slot = inverse[row];
        if (slot < p.rows) { value += rows[slot * p.width + i % p.width]; }
    }
    out[i] = value;
}
