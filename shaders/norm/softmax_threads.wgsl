// softmax_threads: softmax or its logarithm along each row; one invocation a row.
//
//   m = max_c x[r, c],  z = Σ_c e^(x[r, c] − m)
//   out[r, c] = e^(x[r, c] − m) / z, or (x[r, c] − m) − ln z with LOG
//
// in        x (rows, columns) f32
// out       out (rows, columns) f32
// grid      workgroups of LANES rows
// needs     the constants LANES, LOG; common/elements4 or elements1, `columns` in units of Element
// numerics  the largest value is subtracted first, so any finite row is safe; 1 ≤ z ≤ columns

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (rows, columns)

@compute @workgroup_size(LANES)
fn softmax_threads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    var top = x[first];
    for (var c = 1u; c < p.columns; c++) { top = max(top, x[first + c]); }
    let m = largest(top);
    var part: Element;
    for (var c = 0u; c < p.columns; c++) {
        let e = exp(max(x[first + c] - m, Element(-100.0)));
        if (!LOG) { out[first + c] = e; }
        part += e;
    }
    let z = total(part);
    let inverse = 1.0 / z;
    let ln_z = log(z);
    for (var c = 0u; c < p.columns; c++) {
        if (LOG) {
            out[first + c] = (x[first + c] - m) - ln_z;
        } else {
            out[first + c] *= inverse;
        }
    }
}
