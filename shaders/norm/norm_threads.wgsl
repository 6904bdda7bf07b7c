// norm_threads: layer norm or RMS norm of each row, with or without a residual added first; one invocation a row.
//
//   s = x + residual (RESIDUAL) or x
//   μ = mean of s (CENTERED) or 0,  r = 1 / √(mean of (s − μ)² + eps)
//   out = (s − μ) r gain + bias (BIAS) or (s − μ) r gain, gain being what is stored, or that and 1 (PLUS_ONE)
//
// in        x, residual (rows, columns) f32   gain, bias (columns) f32   what a constant rules out is bound but not read
// out       out (rows, columns) f32   stats (rows) of μ and r   sum (rows, columns) f32, only with RESIDUAL
// grid      workgroups of LANES rows
// needs     the constants LANES, CENTERED, BIAS, PLUS_ONE, RESIDUAL; common/elements4 or elements1, `columns` in units of Element
// numerics  x is read twice: mean and squares of the differences from it for four elements at a time, put together as they come, never
//           E[s²] − μ²
// papers    layer norm: Ba et al. 2016, arXiv 1607.06450; RMS norm: Zhang and Sennrich 2019, arXiv 1910.07467; moments of parts:
//           Chan, Golub and LeVeque 1983, doi 10.1080/00031305.1983.10483115

struct Params { base: u32, groups: u32, rows: u32, columns: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;            // (rows, columns)
@group(0) @binding(2) var<storage, read> residual: array<Element>;     // (rows, columns)
@group(0) @binding(3) var<storage, read> gain: array<Element>;         // (columns)
@group(0) @binding(4) var<storage, read> bias: array<Element>;         // (columns)
@group(0) @binding(5) var<storage, read_write> out: array<Element>;    // (rows, columns)
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>;    // (rows)
@group(0) @binding(7) var<storage, read_write> sum: array<Element>;    // (rows, columns)

// The gain of a column: what is stored, or that and 1.
fn gain_of(c: u32) -> Element {
    if (PLUS_ONE) { return gain[c] + 1.0; }
    return gain[c];
}

fn load(i: u32) -> Element {
    if (RESIDUAL) { return x[i] + residual[i]; }
    return x[i];
}

// The number of values so far, their mean (0 if not CENTERED) and the sum of squared differences from it.
struct Moments { count: f32, mean: f32, squares: f32 }

fn both(a: Moments, b: Moments) -> Moments {
    let share = b.count / (a.count + b.count);
    let apart = b.mean - a.mean;
    let squares = a.squares + b.squares + apart * apart * a.count * share;
    return Moments(a.count + b.count, a.mean + apart * share, squares);
}

@compute @workgroup_size(LANES)
fn norm_threads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * LANES + lane;
    if (row >= p.rows) { return; }
    let first = row * p.columns;
    var m = Moments(0.0, 0.0, 0.0);
    let whole = p.columns - p.columns % 4u;
    for (var c = 0u; c < whole; c += 4u) {
        // Four variables, which some drivers keep in registers where they would not keep an array.
        let x0 = load(first + c);
        let x1 = load(first + c + 1u);
        let x2 = load(first + c + 2u);
        let x3 = load(first + c + 3u);
        let count = f32(4u * WIDTH);
        let mean = select(0.0, total((x0 + x1) + (x2 + x3)) / count, CENTERED);
        let d0 = x0 - mean;
        let d1 = x1 - mean;
        let d2 = x2 - mean;
        let d3 = x3 - mean;
        m = both(m, Moments(count, mean, total((d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3))));
    }
    for (var c = whole; c < p.columns; c++) {
        let s = load(first + c);
        let mean = select(0.0, total(s) / f32(WIDTH), CENTERED);
        let d = s - mean;
        m = both(m, Moments(f32(WIDTH), mean, total(d * d)));
    }
    let mean = m.mean;
    let rstd = inverseSqrt(m.squares / m.count + p.eps);
    stats[row] = vec2f(mean, rstd);
    for (var c = 0u; c < p.columns; c++) {
        let s = load(first + c);
        var y = (s - mean) * rstd * gain_of(c);
        if (BIAS) { y += bias[c]; }
        if (RESIDUAL) { sum[first + c] = s; }
        out[first + c] = y;
    }
}
