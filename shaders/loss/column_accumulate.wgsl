// column_accumulate: the sums of the columns of a matrix, alone or added to the output's content.
//
//   out[c] = Σ_r x[r, c]   or, with ACCUMULATE,   out[c] += Σ_r x[r, c]
//
// in        x (rows, columns) f32
// out       out (columns) f32
// grid      one invocation for each Element of out
// needs     the constant ACCUMULATE; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in the order of the rows

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (columns)

@compute @workgroup_size(64)
fn column_accumulate(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let column = group * 64u + lane;
    if (column >= p.columns) { return; }
    var sum = Element();
    for (var row = 0u; row < p.rows; row++) {
        sum += x[row * p.columns + column];
    }
    if (ACCUMULATE) { sum += out[column]; }
    out[column] = sum;
}
