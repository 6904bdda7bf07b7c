// weight_q8_0: quantised weights d q, four signed bytes a word; a scale is an f32.

// Words of the quants of a block, and weights of a word.
const QUANT_WORDS = 8u;
const WORD_WEIGHTS = 4u;

// Weights column to column + 3, which divide by 4, from the word that holds them and their block's scale.
fn weights4(word: u32, column: u32, scale: u32) -> vec4f {
    return bitcast<f32>(scale) * vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}
