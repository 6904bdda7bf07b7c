// soft_cap: scores, or logits, stay within SOFT_CAP of zero.
//
//   S = SOFT_CAP * tanh(score / SOFT_CAP);   dscore = dS * (1 - (S / SOFT_CAP)^2)
//
// needs     constant SOFT_CAP (f32); snippet activation
// numerics  tanh is 1 from 9.1 on: what is larger counts as 16, so that no division overflows

fn share_of_cap(score: vec4f) -> vec4f {
    return clamp(score, vec4f(-16.0 * SOFT_CAP), vec4f(16.0 * SOFT_CAP)) * (1.0 / SOFT_CAP);
}

fn capped(score: vec4f) -> vec4f { return SOFT_CAP * tanh4(share_of_cap(score)); }

// The gradient with respect to the score, from that of the capped score.
fn through_cap(gradient: vec4f, score: vec4f) -> vec4f { return gradient * d_tanh4(share_of_cap(score)); }
