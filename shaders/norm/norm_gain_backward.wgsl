// norm_gain_backward: partial sums of the gradients of layer norm or RMS norm by gain and bias.
//
//   dgain[b, c] = Σ dout[r, c] (x[r, c] − μ[r]) r[r] over the rows b·block ≤ r < (b + 1)·block
//   dbias[b, c] = Σ dout[r, c]                       only with BIAS
//
// column_sum adds the blocks up.
//
// in        x, dout (rows, columns) f32   stats (rows) of μ and r
// out       dgain, dbias (blocks, columns) f32
// grid      blocks × workgroups of 64 columns (256 where 4 divides their number)
// needs     the constant BIAS (if false, dbias is bound but not written); common/elements4 or elements1, `columns` in units
//           of Element
// numerics  f32 sums in the order of the rows

struct Params { base: u32, groups: u32, rows: u32, columns: u32, block: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;             // (rows, columns)
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;           // (rows)
@group(0) @binding(3) var<storage, read> dout: array<Element>;          // (rows, columns)
@group(0) @binding(4) var<storage, read_write> dgain: array<Element>;   // (blocks, columns)
@group(0) @binding(5) var<storage, read_write> dbias: array<Element>;   // (blocks, columns)

@compute @workgroup_size(64)
fn norm_gain_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let across = (p.columns + 63u) / 64u;
    let block = group / across;
    let column = (group % across) * 64u + lane;
    if (column >= p.columns) { return; }
    let end = min((block + 1u) * p.block, p.rows);
    var gain: Element;
    var bias: Element;
    for (var row = block * p.block; row < end; row++) {
        let i = row * p.columns + column;
        let d = dout[i];
        gain += d * (x[i] - stats[row].x) * stats[row].y;
        bias += d;
    }
    dgain[block * p.columns + column] = gain;
    if (BIAS) { dbias[block * p.columns + column] = bias; }
}
