// gated_backward: the gradients of a gated linear unit by both its inputs.
//
//   dgate[i] = dout[i] up[i] f'(gate[i])
//   dup[i]   = dout[i] f(gate[i]), f chosen by the constant ACTIVATION
//
// in        gate (n) f32   up (n) f32   dout (n) f32
// out       dgate (n) f32   dup (n) f32
// grid      one invocation for 1 element (4 where 4 divides n)
// needs     the constant ACTIVATION, common/activation; common/elements4 or elements1, `count` in units of Element
// numerics  see common/activation
// paper     GLU variants improve transformer, Shazeer 2020, arXiv 2002.05202

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gate: array<Element>;          // (n)
@group(0) @binding(2) var<storage, read> up: array<Element>;            // (n)
@group(0) @binding(3) var<storage, read> dout: array<Element>;          // (n)
@group(0) @binding(4) var<storage, read_write> dgate: array<Element>;   // (n)
@group(0) @binding(5) var<storage, read_write> dup: array<Element>;     // (n)

@compute @workgroup_size(64)
fn gated_backward(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i < p.count) {
        let d = dout[i];
        let x = widen(gate[i]);
        dgate[i] = d * up[i] * narrow(d_activate4(ACTIVATION, x));
        dup[i] = d * narrow(activate4(ACTIVATION, x));
    }
}
