// gated_add_backward_threads: the gradients of a gated sum by the summand and by the factor of each row; one invocation a row.
//
//   dy[n, c] = gate[n] dout[n, c],  dgate[n] = Σ_c dout[n, c] y[n, c]
//
// in        dout, y (N, C) f32   gate (N) f32
// out       dy (N, C) f32   dgate (N) f32
// grid      workgroups of LANES rows
// needs     the constant LANES; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in the order of the columns, four of them side by side where 4 divides their number

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<Element>;       // (N, C)
@group(0) @binding(2) var<storage, read> y: array<Element>;          // (N, C)
@group(0) @binding(3) var<storage, read> gate: array<f32>;           // (N)
@group(0) @binding(4) var<storage, read_write> dy: array<Element>;   // (N, C)
@group(0) @binding(5) var<storage, read_write> dgate: array<f32>;    // (N)

@compute @workgroup_size(LANES)
fn gated_add_backward_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let factor = gate[row];
    var part: Element;
    for (var i = row * p.columns; i < (row + 1u) * p.columns; i++) {
        let d = dout[i];
        part += d * y[i];
        dy[i] = d * factor;
    }
    dgate[row] = total(part);
}
