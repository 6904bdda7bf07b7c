// argmax_rows: the index of the largest element of each row; of equal ones the first.
//
//   out[n] = the least r with x[n, r] + bias[r] = max_s (x[n, s] + bias[s])
//
// in        x (N, R) f32   bias (R) f32, bound but not read without has_bias
// out       out (N) u32
// grid      one invocation for a row
// numerics  the sum with the bias is rounded

struct Params { base: u32, groups: u32, rows: u32, columns: u32, has_bias: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;           // (N, R)
@group(0) @binding(2) var<storage, read> bias: array<f32>;        // (R)
@group(0) @binding(3) var<storage, read_write> out: array<u32>;   // (N)

@compute @workgroup_size(64)
fn argmax_rows(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * 64u + lane;
    if (row >= p.rows) { return; }
    var best = 0u;
    var largest = 0.0;
    for (var r = 0u; r < p.columns; r++) {
        var value = x[row * p.columns + r];
        if (p.has_bias != 0u) { value += bias[r]; }
        if (r == 0u || value > largest) {
            largest = value;
            best = r;
        }
    }
    out[row] = best;
}
