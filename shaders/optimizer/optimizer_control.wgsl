// optimizer_control: the control values of an optimiser step: clipping, bias correction, loss scaling, skipping.
//
//   true_norm = norm * share / scale          coefficient = min(1, max_norm / (true_norm + 1e-6)) * share / scale
//   c1 <- a1 + (1 - a1) * c1                  a1 = 1 - beta1, so that c1 = 1 - beta1^t without a power; c2 alike
//   a good step: t + 1, and scale * growth after `interval` of them; a bad one: skipped + 1, scale * backoff
//
// in        norm (1) f32 as bits   loss (1 or more) f32 as bits, the first is read   scalars (16) f32
// out       control (16) f32 as bits   state (64) f32, 8 in use, updated
// grid      one invocation
// numerics  f32; betas come as 1 - beta, since 1 - 0.999 is off by 1e-5 in f32; values that may be NaN are tested and copied as bits only
// paper     Loshchilov and Hutter, arXiv:1711.05101; Micikevicius et al., arXiv:1710.03740

struct Params { base: u32, groups: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> norm: array<u32>;             // (1)
@group(0) @binding(2) var<storage, read> loss: array<u32>;             // (1 or more)
@group(0) @binding(3) var<storage, read> scalars: array<f32>;          // (16) lr a1 a2 eps wd max_norm share scale0 growth backoff interval scale_max
@group(0) @binding(4) var<storage, read_write> control: array<u32>;    // (16)
@group(0) @binding(5) var<storage, read_write> state: array<f32>;      // (64) scale good skipped t c1 c2 norm row

fn is_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

fn product(bits: u32, factor: f32) -> u32 {
    return select(bits, bitcast<u32>(bitcast<f32>(select(0u, bits, is_finite(bits))) * factor), is_finite(bits));
}

@compute @workgroup_size(1)
fn optimizer_control(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u) {
    if (p.base + w.x + w.y * n.x >= p.groups) { return; }
    let good = is_finite(norm[0]) && is_finite(loss[0]);
    let scale = select(state[0], scalars[7], state[0] == 0.0);
    let true_norm = product(norm[0], scalars[6] / scale);
    let length = bitcast<f32>(select(0u, true_norm, good));
    let clip = select(1.0, min(1.0, scalars[5] / (length + 1e-6)), scalars[5] > 0.0);
    var next_scale = scale;
    var streak = 0.0;
    if (good) {
        state[3] += 1.0;
        state[4] = scalars[1] + (1.0 - scalars[1]) * state[4];
        state[5] = scalars[2] + (1.0 - scalars[2]) * state[5];
        state[7] = 0.0;
        streak = state[1] + 1.0;
        if (streak >= scalars[10]) {
            next_scale = min(scale * scalars[8], scalars[11]);
            streak = 0.0;
        }
    } else {
        state[2] += 1.0;
        state[7] += 1.0;
        next_scale = max(scale * scalars[9], 1e-6);
    }
    state[0] = next_scale;
    state[1] = streak;
    state[6] = length;
    control[0] = bitcast<u32>(clip * scalars[6] / scale);
    control[1] = bitcast<u32>(scalars[0]);
    control[2] = bitcast<u32>(state[4]);
    control[3] = bitcast<u32>(state[5]);
    control[4] = bitcast<u32>(scalars[1]);
    control[5] = bitcast<u32>(scalars[2]);
    control[6] = bitcast<u32>(scalars[3]);
    control[7] = bitcast<u32>(scalars[4]);
    control[8] = bitcast<u32>(select(1.0, 0.0, good));
    control[9] = product(loss[0], scalars[6]);
    control[10] = true_norm;
    control[11] = bitcast<u32>(scale);
    control[12] = bitcast<u32>(state[3]);
    control[13] = bitcast<u32>(state[2]);
    control[14] = bitcast<u32>(state[7]);
    control[15] = bitcast<u32>(clip);
}
