// softmax_workgroup: softmax or its logarithm along each row; one workgroup a row.
//
//   m = max_c x[r, c],  z = Σ_c e^(x[r, c] − m)
//   out[r, c] = e^(x[r, c] − m) / z, or (x[r, c] − m) − ln z with LOG
//
// in        x (rows, columns) f32
// out       out (rows, columns) f32
// grid      one workgroup of LANES invocations for a row
// needs     the constants LANES, LOG; common/reduce_workgroup; common/elements4 or elements1, `columns` in units of Element
// numerics  the largest value is subtracted first, so any finite row is safe; 1 ≤ z ≤ columns; sums in a fixed order

struct Params { base: u32, groups: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (rows, columns)

@compute @workgroup_size(LANES)
fn softmax_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.columns;
    // Every invocation starts from an element that is there, also where the row is shorter than the workgroup.
    var top = x[first + min(lane, p.columns - 1u)];
    for (var c = lane + LANES; c < p.columns; c += LANES) { top = max(top, x[first + c]); }
    let m = max_over_workgroup(largest(top), lane);
    var part: Element;
    for (var c = lane; c < p.columns; c += LANES) {
        let e = exp(max(x[first + c] - m, Element(-100.0)));
        if (!LOG) { out[first + c] = e; }
        part += e;
    }
    let z = sum_over_workgroup(total(part), lane);
    let inverse = 1.0 / z;
    let ln_z = log(z);
    for (var c = lane; c < p.columns; c += LANES) {
        if (LOG) {
            out[first + c] = (x[first + c] - m) - ln_z;
        } else {
            out[first + c] *= inverse;
        }
    }
}
