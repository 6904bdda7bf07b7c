// softmax_backward_workgroup: the gradient of softmax or of its logarithm; one workgroup a row.
//
//   dx = y (dout − Σ_c y dout), or dout − e^y Σ_c dout with LOG; y is what the forward pass gave
//
// in        y, dout (rows, columns) f32
// out       dx (rows, columns) f32
// grid      one workgroup of LANES invocations for a row
// needs     the constants LANES, LOG; common/reduce_workgroup; common/elements4 or elements1, `columns` in units of Element
// numerics  f32 sums in a fixed order

struct Params { base: u32, groups: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<Element>;          // (rows, columns)
@group(0) @binding(2) var<storage, read> dout: array<Element>;       // (rows, columns)
@group(0) @binding(3) var<storage, read_write> dx: array<Element>;   // (rows, columns)

@compute @workgroup_size(LANES)
fn softmax_backward_workgroup(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.columns;
    var part: Element;
    for (var c = lane; c < p.columns; c += LANES) {
        if (LOG) { part += dout[first + c]; } else { part += y[first + c] * dout[first + c]; }
    }
    let level = sum_over_workgroup(total(part), lane);
    for (var c = lane; c < p.columns; c += LANES) {
        let i = first + c;
        if (LOG) {
            dx[i] = dout[i] - exp(max(y[i], Element(-100.0))) * level;
        } else {
            dx[i] = y[i] * (dout[i] - level);
        }
    }
}
