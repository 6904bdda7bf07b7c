// loss_seed: the factor that the loss is differentiated with.
//
//   seed = state.scale, or the initial scale before the first step
//
// in        state (64) f32, 8 in use   scalars (16) f32
// out       seed (1) f32
// grid      one invocation
// numerics  exact

struct Params { base: u32, groups: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;         // (64)
@group(0) @binding(2) var<storage, read> scalars: array<f32>;       // (16)
@group(0) @binding(3) var<storage, read_write> seed: array<f32>;    // (1)

@compute @workgroup_size(1)
fn loss_seed(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u) {
    if (p.base + w.x + w.y * n.x >= p.groups) { return; }
    seed[0] = select(state[0], scalars[7], state[0] == 0.0);
}
