// row_sum_workgroup: the sum of each row, one workgroup a row.
//
//   out[r] = factor Σ_c x[r, c]
//
// in        x (rows, columns) f32
// out       out (rows) f32
// grid      one workgroup of LANES invocations for a row
// needs     the constant LANES, common/reduce_workgroup; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums of every LANES-th element, then a fixed tree

struct Params { base: u32, groups: u32, columns: u32, factor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;       // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<f32>;   // (rows)

@compute @workgroup_size(LANES)
fn row_sum_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    var part: Element;
    for (var c = lane; c < p.columns; c += LANES) {
        part += x[row * p.columns + c];
    }
    let sum = sum_over_workgroup(total(part), lane);
    if (lane == 0u) { out[row] = sum * p.factor; }
}
