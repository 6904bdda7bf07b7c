// pick_backward: the gradient of pick: dout at the picked column of each row, zeros elsewhere.
//
//   dx[n, r] = dout[n]  if r = index[n],  else 0
//
// in        index (N) u32   dout (N) f32
// out       dx (N, R) f32
// grid      one invocation for an element
// numerics  exact

struct Params { base: u32, groups: u32, count: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> index: array<u32>;      // (N)
@group(0) @binding(2) var<storage, read> dout: array<f32>;       // (N)
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;   // (N, R)

@compute @workgroup_size(64)
fn pick_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.columns;
    dx[i] = select(0.0, dout[row], index[row] == i - row * p.columns);
}
