// cross_entropy_in_place: logits become the gradient of the mean cross-entropy by them.
//
//   z_rv ← upstream · scale · ((1 + 2c·lse_r)·e^(z_rv − lse_r) − (1 − ε)·[v = label_r] − ε / classes)
//
// in, out   logits (rows, columns) f32, in place
// in        labels (all rows) i32, lse (all rows) f32: those of the logits begin at first_row   scale, upstream (1) f32
// grid      one workgroup for each row and tile of 512 Elements
// needs     common/elements4 or elements1, `columns` in units of Element; common/cross_entropy_gradient and soft_cap or soft_cap_none, which
//           multiplies the slope of the cap in
// numerics  f32

struct Params { base: u32, groups: u32, columns: u32, tiles: u32, first_row: u32, smoothing: f32, z_loss: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<i32>;             // (all rows)
@group(0) @binding(2) var<storage, read> lse: array<f32>;                // (all rows)
@group(0) @binding(3) var<storage, read> scale: array<f32>;              // (1)
@group(0) @binding(4) var<storage, read> upstream: array<f32>;           // (1)
@group(0) @binding(5) var<storage, read_write> logits: array<Element>;   // (rows, columns)

@compute @workgroup_size(64)
fn cross_entropy_in_place(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group / p.tiles;
    let factor = scale[0] * upstream[0];
    let label = labels[p.first_row + row];
    let row_lse = lse[p.first_row + row];
    let end = min((group % p.tiles + 1u) * 512u, p.columns);
    for (var c = (group % p.tiles) * 512u + lane; c < end; c += 64u) {
        let i = row * p.columns + c;
        logits[i] = gradient_of(logits[i], c, label, row_lse, factor);
    }
}
