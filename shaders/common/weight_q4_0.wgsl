// weight_q4_0: quantised weights d (q - 8), eight a word; a scale is an f32.

const WORD_WEIGHTS = 8u;

// Weights i to i + 3, which divide by 4, from the word that holds them and their block's scale.
fn weights4(word: u32, i: u32, scale: u32) -> vec4f {
    let q = (vec4u(word >> ((i & 4u) * 4u)) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
    return bitcast<f32>(scale) * (vec4f(q) - 8.0);
}

// Quant number i of each of four words.
fn quants(words: vec4u, i: u32) -> vec4f { return vec4f(bitcast<vec4i>((words >> vec4u(i * 4u)) & vec4u(15u))); }

// d and m of a scale: a weight is d q + m.
fn step_and_offset(scale: u32) -> vec2f { return bitcast<f32>(scale) * vec2f(1.0, -8.0); }
