// gate: the functions that the gate kernels of a mixture of experts share.
//
// use       order_key(x): unsigned keys in the order of the floats, one for both zeros; a NaN has a place in the order too
//           logistic(x): 1 / (1 + e^−x) without overflow

fn order_key(x: f32) -> u32 {
    let bits = bitcast<u32>(select(x, 0.0, x == 0.0));
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn logistic(x: f32) -> f32 {
    let e = exp(max(-abs(x), -87.0));
    return select(e, 1.0, x >= 0.0) / (1.0 + e);
}
