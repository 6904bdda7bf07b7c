// activation_backward: the gradient of an activation function.
//
//   dx[i] = dout[i] f'(x[i]), f chosen by the constant ACTIVATION
//
// in        x (n) f32   dout (n) f32
// out       dx (n) f32
// grid      one invocation for 1 element (4 where 4 divides n)
// needs     the constant ACTIVATION, common/activation; common/elements4 or elements1, `count` in units of Element
// numerics  see common/activation

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;          // (n)
@group(0) @binding(2) var<storage, read> dout: array<Element>;       // (n)
@group(0) @binding(3) var<storage, read_write> dx: array<Element>;   // (n)

@compute @workgroup_size(64)
fn activation_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i < p.count) {
        dx[i] = dout[i] * narrow(d_activate4(ACTIVATION, widen(x[i])));
    }
}
