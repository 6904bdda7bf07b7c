// norm_workgroup: layer norm or RMS norm of each row, with or without a residual added first; one workgroup a row.
//
//   s = x + residual (RESIDUAL) or x
//   μ = mean of s (CENTERED) or 0,  r = 1 / √(mean of (s − μ)² + eps)
//   out = (s − μ) r gain + bias (BIAS) or (s − μ) r gain, gain being what is stored, or that and 1 (PLUS_ONE)
//
// in        x, residual (rows, columns) f32   gain, bias (columns) f32   what a constant rules out is bound but not read
// out       out (rows, columns) f32   stats (rows) of μ and r   sum (rows, columns) f32, only with RESIDUAL
// grid      one workgroup of LANES invocations for a row
// needs     the constants LANES, CENTERED, BIAS, PLUS_ONE, RESIDUAL; common/reduce_workgroup; common/elements4 or elements1, `columns`
//           in units of Element
// numerics  two passes: the mean first, then the squares of the differences from it, never E[s²] − μ²; sums in a fixed order
// papers    layer norm: Ba et al. 2016, arXiv 1607.06450; RMS norm: Zhang and Sennrich 2019, arXiv 1910.07467

struct Params { base: u32, groups: u32, columns: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;            // (rows, columns)
@group(0) @binding(2) var<storage, read> residual: array<Element>;     // (rows, columns)
@group(0) @binding(3) var<storage, read> gain: array<Element>;         // (columns)
@group(0) @binding(4) var<storage, read> bias: array<Element>;         // (columns)
@group(0) @binding(5) var<storage, read_write> out: array<Element>;    // (rows, columns)
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>;    // (rows)
@group(0) @binding(7) var<storage, read_write> sum: array<Element>;    // (rows, columns)

// The first HELD elements of an invocation stay in registers, so that a row of usual length is read once.
const HELD: u32 = 4u;

// The gain of a column: what is stored, or that and 1.
fn gain_of(c: u32) -> Element {
    if (PLUS_ONE) { return gain[c] + 1.0; }
    return gain[c];
}

fn load(i: u32) -> Element {
    if (RESIDUAL) { return x[i] + residual[i]; }
    return x[i];
}

@compute @workgroup_size(LANES)
fn norm_workgroup(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let row = p.base + w.x + w.y * n.x;
    if (row >= p.groups) { return; }
    let first = row * p.columns;
    let share = 1.0 / f32(p.columns * WIDTH);
    var held: array<Element, HELD>;
    var part: Element;
    for (var k = 0u; k < HELD; k++) {
        let c = lane + k * LANES;
        if (c < p.columns) { held[k] = load(first + c); }
        part += held[k];
    }
    var mean = 0.0;
    if (CENTERED) {
        for (var c = lane + HELD * LANES; c < p.columns; c += LANES) { part += load(first + c); }
        mean = sum_over_workgroup(total(part), lane) * share;
    }
    var squares: Element;
    for (var k = 0u; k < HELD; k++) {
        let d = held[k] - mean;
        if (lane + k * LANES < p.columns) { squares += d * d; }
    }
    for (var c = lane + HELD * LANES; c < p.columns; c += LANES) {
        let d = load(first + c) - mean;
        squares += d * d;
    }
    let rstd = inverseSqrt(sum_over_workgroup(total(squares), lane) * share + p.eps);
    if (lane == 0u) { stats[row] = vec2f(mean, rstd); }
    for (var k = 0u; k < HELD; k++) {
        let c = lane + k * LANES;
        if (c < p.columns) { finish(first, c, held[k], mean, rstd); }
    }
    for (var c = lane + HELD * LANES; c < p.columns; c += LANES) {
        finish(first, c, load(first + c), mean, rstd);
    }
}

fn finish(first: u32, c: u32, s: Element, mean: f32, rstd: f32) {
    var y = (s - mean) * rstd * gain_of(c);
    if (BIAS) { y += bias[c]; }
    if (RESIDUAL) { sum[first + c] = s; }
    out[first + c] = y;
}
