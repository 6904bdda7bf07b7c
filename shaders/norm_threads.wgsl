// norm_threads: layer norm or RMS norm of each row, with or without a residual added first; one invocation a row.
//
//   s = x + residual (RESIDUAL) or x
//   μ = mean of s (CENTERED) or 0,  r = 1 / √(mean of (s − μ)² + eps)
//   out = (s − μ) r gain + bias (BIAS) or (s − μ) r gain
//
// in        x, residual (rows, columns) f32   gain, bias (columns) f32   what a constant rules out is bound but not read
// out       out (rows, columns) f32   stats (rows) of μ and r   sum (rows, columns) f32, only with RESIDUAL
// grid      workgroups of LANES rows
// needs     the constants LANES, CENTERED, BIAS, RESIDUAL; common/elements4 or elements1, `columns` in units of Element
// numerics  two passes: the mean first, then the squares of the differences from it, never E[s²] − μ²
// papers    layer norm: Ba et al. 2016, arXiv 1607.06450; RMS norm: Zhang and Sennrich 2019, arXiv 1910.07467

struct Params { base: u32, groups: u32, rows: u32, columns: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;            // (rows, columns)
@group(0) @binding(2) var<storage, read> residual: array<Element>;     // (rows, columns)
@group(0) @binding(3) var<storage, read> gain: array<Element>;         // (columns)
@group(0) @binding(4) var<storage, read> bias: array<Element>;         // (columns)
@group(0) @binding(5) var<storage, read_write> out: array<Element>;    // (rows, columns)
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>;    // (rows)
@group(0) @binding(7) var<storage, read_write> sum: array<Element>;    // (rows, columns)

fn load(i: u32) -> Element {
    if (RESIDUAL) { return x[i] + residual[i]; }
    return x[i];
}

@compute @workgroup_size(LANES)
fn norm_threads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    let share = 1.0 / f32(p.columns * WIDTH);
    var mean = 0.0;
    if (CENTERED) {
        var part: Element;
        for (var c = 0u; c < p.columns; c++) { part += load(first + c); }
        mean = total(part) * share;
    }
    var squares: Element;
    for (var c = 0u; c < p.columns; c++) {
        let d = load(first + c) - mean;
        squares += d * d;
    }
    let rstd = inverseSqrt(total(squares) * share + p.eps);
    stats[row] = vec2f(mean, rstd);
    for (var c = 0u; c < p.columns; c++) {
        let s = load(first + c);
        var y = (s - mean) * rstd * gain[c];
        if (BIAS) { y += bias[c]; }
        if (RESIDUAL) { sum[first + c] = s; }
        out[first + c] = y;
    }
}
