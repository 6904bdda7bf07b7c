// weight_q8_0: quantised weights d q, four signed bytes a word; a scale is an f32.

const WORD_WEIGHTS = 4u;

// Weights i to i + 3, which divide by 4, from the word that holds them and their block's scale.
fn weights4(word: u32, i: u32, scale: u32) -> vec4f {
    return bitcast<f32>(scale) * vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}

// Quant number i of each of four words.
fn quants(words: vec4u, i: u32) -> vec4f {
    return vec4f(bitcast<vec4i>(words << vec4u(24u - i * 8u)) >> vec4u(24u));
}

// d and m of a scale: a weight is d q + m.
fn step_and_offset(scale: u32) -> vec2f { return vec2f(bitcast<f32>(scale), 0.0); }
