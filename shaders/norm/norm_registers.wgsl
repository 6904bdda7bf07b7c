// norm_registers: layer norm or RMS norm of each row, with or without a residual added first; a subgroup holds a row in registers. For
// drivers that run shaders on the CPU.
//
//   s = x + residual (RESIDUAL) or x
//   μ = mean of s (CENTERED) or 0,  r = 1 / √(mean of (s − μ)² + eps)
//   out = (s − μ) r gain + bias (BIAS) or (s − μ) r gain, gain being what is stored, or that and 1 (PLUS_ONE)
//
//   Such drivers store lane by lane, and take little longer for four words of 64 bits than for four of 32: a lane has eight columns
//   side by side. x, gain and bias are read once, the latter for all rows of a workgroup.
//
// in        x, residual (rows, columns) f32   gain, bias (columns) f32   what a constant rules out is bound but not read
// out       out (rows, columns) f32   stats (rows) of μ and r   sum (rows, columns) f32, only with RESIDUAL
// grid      workgroups of `share` rows
// needs     the constants LANES (the subgroup size, the same everywhere), HELD (columns are 8 HELD LANES), CENTERED, BIAS, PLUS_ONE, RESIDUAL;
//           subgroup shuffles, 64-bit integers
// numerics  two passes: the mean first, then the squares of the differences from it, never E[s²] − μ²; sums in a fixed order
// papers    layer norm: Ba et al. 2016, arXiv 1607.06450; RMS norm: Zhang and Sennrich 2019, arXiv 1910.07467

struct Params { base: u32, groups: u32, rows: u32, share: u32, eps: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;                   // (rows, columns)
@group(0) @binding(2) var<storage, read> residual: array<vec4f>;            // (rows, columns)
@group(0) @binding(3) var<storage, read> gain: array<vec4f>;                // (columns)
@group(0) @binding(4) var<storage, read> bias: array<vec4f>;                // (columns)
@group(0) @binding(5) var<storage, read_write> out: array<vec4<u64>>;       // (rows, columns)
@group(0) @binding(6) var<storage, read_write> stats: array<vec2f>;         // (rows)
@group(0) @binding(7) var<storage, read_write> sum: array<vec4<u64>>;       // (rows, columns)

// A lane's columns of a row.
alias Held = array<array<vec4f, 2>, HELD>;

fn over_lanes(v: vec4f) -> f32 {
    let x = (v.x + v.y) + (v.z + v.w);
    // Shuffles with a constant lane, which cost as much as a move; those of subgroupAdd are loops.
    var parts: array<f32, LANES>;
    for (var j = 0u; j < LANES; j++) { parts[j] = subgroupShuffle(x, j); }
    var sum = 0.0;
    for (var j = 0u; j < LANES; j++) { sum += parts[j]; }
    return sum;
}

fn wide(a: vec4f, b: vec4f) -> vec4<u64> {
    let low = vec4<u64>(bitcast<vec4u>(vec4f(a.xz, b.xz)));
    let high = vec4<u64>(bitcast<vec4u>(vec4f(a.yw, b.yw)));
    return low | (high << vec4u(32u));
}

@compute @workgroup_size(LANES)
fn norm_registers(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    const COLUMNS = 8u * HELD * LANES;
    var g: Held;
    var b: Held;
    for (var k = 0u; k < HELD; k++) {
        for (var i = 0u; i < 2u; i++) {
            g[k][i] = gain[2u * (k * LANES + lane) + i];
            if (PLUS_ONE) { g[k][i] += 1.0; }
            if (BIAS) { b[k][i] = bias[2u * (k * LANES + lane) + i]; }
        }
    }
    let first = group * p.share;
    let last = min(first + p.share, p.rows);
    var own: vec2f;
    for (var row = first; row < last; row++) {
        let start = row * (COLUMNS / 8u) + lane;
        var s = Held();
        var part = vec4f();
        for (var k = 0u; k < HELD; k++) {
            for (var i = 0u; i < 2u; i++) {
                s[k][i] = x[2u * (start + k * LANES) + i];
                if (RESIDUAL) { s[k][i] += residual[2u * (start + k * LANES) + i]; }
                part += s[k][i];
            }
        }
        let mean = select(0.0, over_lanes(part) / f32(COLUMNS), CENTERED);
        var squares = vec4f();
        for (var k = 0u; k < HELD; k++) {
            for (var i = 0u; i < 2u; i++) {
                let d = s[k][i] - mean;
                squares += d * d;
            }
        }
        let rstd = inverseSqrt(over_lanes(squares) / f32(COLUMNS) + p.eps);
        // Each lane keeps the pair of one row, so that all are stored at once.
        let owner = (row - first) % LANES;
        own = select(own, vec2f(mean, rstd), owner == lane);
        if ((owner == LANES - 1u || row + 1u == last) && lane <= owner) { stats[row - owner + lane] = own; }
        for (var k = 0u; k < HELD; k++) {
            var y = array<vec4f, 2>();
            for (var i = 0u; i < 2u; i++) {
                y[i] = (s[k][i] - mean) * rstd * g[k][i];
                if (BIAS) { y[i] += b[k][i]; }
            }
            if (RESIDUAL) { sum[start + k * LANES] = wide(s[k][0], s[k][1]); }
            out[start + k * LANES] = wide(y[0], y[1]);
        }
    }
}
