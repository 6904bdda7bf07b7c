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

// The first HELD elements of an invocation stay in registers, so that a row of usual length is read once.
const HELD: u32 = 4u;

fn power(x: Element, m: f32) -> Element { return exp(max(x - m, Element(-100.0))); }

@compute @workgroup_size(LANES)
fn softmax_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.columns;
    // An invocation beyond the end holds the last element, which changes no maximum.
    var held: array<Element, HELD>;
    var top = Element(x[first + p.columns - 1u]);
    for (var k = 0u; k < HELD; k++) {
        held[k] = x[first + min(lane + k * LANES, p.columns - 1u)];
        top = max(top, held[k]);
    }
    for (var c = lane + HELD * LANES; c < p.columns; c += LANES) { top = max(top, x[first + c]); }
    let m = max_over_workgroup(largest(top), lane);
    var part: Element;
    for (var k = 0u; k < HELD; k++) {
        if (lane + k * LANES < p.columns) { part += power(held[k], m); }
    }
    for (var c = lane + HELD * LANES; c < p.columns; c += LANES) { part += power(x[first + c], m); }
    let z = sum_over_workgroup(total(part), lane);
    for (var k = 0u; k < HELD; k++) {
        let c = lane + k * LANES;
        if (c < p.columns) { finish(first + c, held[k], m, z); }
    }
    for (var c = lane + HELD * LANES; c < p.columns; c += LANES) { finish(first + c, x[first + c], m, z); }
}

fn finish(i: u32, x: Element, m: f32, z: f32) {
    if (LOG) { out[i] = (x - m) - log(z); } else { out[i] = power(x, m) * (1.0 / z); }
}
