// row_sum_threads: the sum of each row, one invocation a row.
//
//   out[r] = factor Σ_c x[r, c]
//
// in        x (rows, columns) f32
// out       out (rows) f32
// grid      workgroups of LANES rows
// needs     the constant LANES; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in the order of the columns, four of them side by side where 4 divides their number

struct Params { base: u32, groups: u32, rows: u32, columns: u32, factor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;       // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<f32>;   // (rows)

@compute @workgroup_size(LANES)
fn row_sum_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    var sum: Element;
    for (var c = 0u; c < p.columns; c++) {
        sum += x[row * p.columns + c];
    }
    out[row] = total(sum) * p.factor;
}
