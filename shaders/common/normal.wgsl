// normal: a standard normal number from two random words, with nothing in it that adapters compute to different accuracy.
//
// use       normal(words)
// needs     only basic arithmetic, one square root and, for u < 15/16, one logarithm
// numerics  u in (0, 1] and the angle have 24 bits; within some units in the last place of sqrt(−2 ln u) cos(2π v)
// paper     Box and Muller, "A Note on the Generation of Random Normal Deviates"

// −ln u. Near 1, where the logarithm of an adapter may be off by more than it amounts to, the series in 1 − u.
fn minus_ln(u: f32) -> f32 {
    let v = 1.0 - u;
    if (v > 0.0625) { return -log(u); }
    let high = 1.0 / 4.0 + v * (1.0 / 5.0 + v * (1.0 / 6.0 + v * (1.0 / 7.0)));
    return v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * high)));
}

// cos of some turns, 0 ≤ turns < 1: an eighth of a turn at most goes into a polynomial.
fn cos_of_turns(turns: f32) -> f32 {
    let quarters = turns * 4.0;
    let whole = floor(quarters + 0.5);
    let x = (quarters - whole) * 1.57079632679;
    let s = x * x;
    let cosine = 1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40320.0 - s / 3628800.0))));
    let sine = x * (1.0 + s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s / 362880.0))));
    switch (u32(whole) & 3u) {
        case 0u: { return cosine; }
        case 1u: { return -sine; }
        case 2u: { return -cosine; }
        default: { return sine; }
    }
}

fn normal(words: vec2u) -> f32 {
    let u = f32((words.x >> 8u) + 1u) * 5.9604644775390625e-8;
    let turns = f32(words.y >> 8u) * 5.9604644775390625e-8;
    return sqrt(2.0 * minus_ln(u)) * cos_of_turns(turns);
}
