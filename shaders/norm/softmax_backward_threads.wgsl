// softmax_backward_threads: the gradient of softmax or of its logarithm; one invocation a row.
//
//   dx = y (dout − Σ_c y dout), or dout − e^y Σ_c dout with LOG; y is what the forward pass gave
//
// in        y, dout (rows, columns) f32
// out       dx (rows, columns) f32
// grid      workgroups of LANES rows
// needs     the constants LANES, LOG; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in the order of the columns

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Element>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> dout: array<Element>;       // (rows, columns)
@group(0) @binding(3) var<storage, read_write> dx: array<Element>;   // (rows, columns)

@compute @workgroup_size(LANES)
fn softmax_backward_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    var part: Element;
    for (var c = 0u; c < p.columns; c++) {
        if (LOG) { part += dout[first + c]; } else { part += y[first + c] * dout[first + c]; }
    }
    let level = total(part);
    for (var c = 0u; c < p.columns; c++) {
        let i = first + c;
        if (LOG) {
            dx[i] = dout[i] - exp(max(y[i], Element(-100.0))) * level;
        } else {
            dx[i] = y[i] * (dout[i] - level);
        }
    }
}
