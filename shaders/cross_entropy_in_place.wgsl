// cross_entropy_in_place: logits become the gradient of the mean cross-entropy by them.
//
//   z_rv ← upstream · scale · ((1 + 2c·lse_r)·e^(z_rv − lse_r) − (1 − ε)·[v = label_r] − ε / classes)
//
// in, out   logits (rows, columns) f32, in place
// in        labels (all rows) i32, lse (all rows) f32: those of the logits begin at first_row   scale, upstream (1) f32
// grid      one invocation for each Element of the logits
// needs     common/elements4 or elements1, `columns` in units of Element; common/cross_entropy_gradient
// numerics  f32

struct Params { base: u32, groups: u32, count: u32, columns: u32, first_row: u32, smoothing: f32, z_loss: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<i32>;             // (all rows)
@group(0) @binding(2) var<storage, read> lse: array<f32>;                // (all rows)
@group(0) @binding(3) var<storage, read> scale: array<f32>;              // (1)
@group(0) @binding(4) var<storage, read> upstream: array<f32>;           // (1)
@group(0) @binding(5) var<storage, read_write> logits: array<Element>;   // (rows, columns)

@compute @workgroup_size(256)
fn cross_entropy_in_place(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.columns;
    let at = p.first_row + row;
    logits[i] = gradient_of(logits[i], i - row * p.columns, labels[at], lse[at], scale[0] * upstream[0]);
}
