// weight_q4_k: quantised weights d s q - e m, s and m of 32 of them.
//
// needs  weights_nibbles, scales_with_minima

// Words of the scales of 256 weights.
const SCALE_WORDS = 6u;
