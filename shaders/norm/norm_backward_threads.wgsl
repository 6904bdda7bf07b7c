// norm_backward_threads: the gradient of layer norm or RMS norm by its rows; one invocation a row.
//
//   x̂ = (x − μ) r,  g = gain dout, gain being what is stored, or that and 1 (PLUS_ONE)
//   dx = r (g − x̂ mean(x̂ g) − mean(g)) + dsum     the third term only with CENTERED, the last only with RESIDUAL
//
// in        x, dout, dsum (rows, columns) f32   stats (rows) of μ and r   gain (columns) f32
// out       dx (rows, columns) f32
// grid      workgroups of LANES rows
// needs     the constants LANES, CENTERED, PLUS_ONE, RESIDUAL (if false, dsum is bound but not read); common/elements4 or elements1,
//           `columns` in units of Element
// numerics  f32 sums in the order of the columns

struct Params { base: u32, groups: u32, rows: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;         // (rows)
@group(0) @binding(3) var<storage, read> gain: array<Element>;        // (columns)
@group(0) @binding(4) var<storage, read> dout: array<Element>;        // (rows, columns)
@group(0) @binding(5) var<storage, read> dsum: array<Element>;        // (rows, columns)
@group(0) @binding(6) var<storage, read_write> dx: array<Element>;    // (rows, columns)

// The gain of a column: what is stored, or that and 1.
fn gain_of(c: u32) -> Element {
    if (PLUS_ONE) { return gain[c] + 1.0; }
    return gain[c];
}

@compute @workgroup_size(LANES)
fn norm_backward_threads(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    let share = 1.0 / f32(p.columns * WIDTH);
    let mean = stats[row].x;
    let rstd = stats[row].y;
    var along: Element;
    var level: Element;
    for (var c = 0u; c < p.columns; c++) {
        let g = gain_of(c) * dout[first + c];
        along += g * (x[first + c] - mean) * rstd;
        level += g;
    }
    let c1 = total(along) * share;
    let c2 = select(0.0, total(level) * share, CENTERED);
    for (var c = 0u; c < p.columns; c++) {
        let g = gain_of(c) * dout[first + c];
        var d = rstd * (g - (x[first + c] - mean) * rstd * c1 - c2);
        if (RESIDUAL) { d += dsum[first + c]; }
        dx[first + c] = d;
    }
}
