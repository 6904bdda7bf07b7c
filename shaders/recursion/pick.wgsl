// pick: one element of each row.
//
//   out[n] = x[n, index[n]], 0 where index[n] is no column
//
// in        x (N, R) f32   index (N) u32
// out       out (N) f32
// grid      one invocation for a row
// numerics  exact

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (N, R)
@group(0) @binding(2) var<storage, read> index: array<u32>;       // (N)
@group(0) @binding(3) var<storage, read_write> out: array<f32>;   // (N)

@compute @workgroup_size(64)
fn pick(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * 64u + lane;
    if (row >= p.rows) { return; }
    let column = index[row];
    var value = 0.0;
    if (column < p.columns) { value = x[row * p.columns + column]; }
    out[row] = value;
}
