// weight_q4_0: quantised weights d (q - 8), eight a word; a scale is an f32.

// Words of the quants of a block, and weights of a word.
const QUANT_WORDS = 4u;
const WORD_WEIGHTS = 8u;

// Weights column to column + 3, which divide by 4, from the word that holds them and their block's scale.
fn weights4(word: u32, column: u32, scale: u32) -> vec4f {
    let quants = (vec4u(word >> ((column & 4u) * 4u)) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
    return bitcast<f32>(scale) * (vec4f(quants) - 8.0);
}
