// weights_nibbles: quantised weights d q + m, d and m of 32 of them, eight a word.
//
// needs  step_and_offset (weight_*)

const WORD_WEIGHTS = 8u;

// Weights i to i + 3, which divide by 4, from the word that holds them.
fn weights4(word: u32, i: u32) -> vec4f {
    let q = (vec4u(word >> ((i & 4u) * 4u)) >> vec4u(0u, 4u, 8u, 12u)) & vec4u(15u);
    let dm = step_and_offset(i / 32u);
    return dm.x * vec4f(q) + dm.y;
}

// What the quants of a word of each of four blocks need in addition: nothing.
struct Side { nothing: u32 }
fn side(at: vec4u, word: u32) -> Side { return Side(0u); }

// Quant number i of each of four words.
fn quants(words: vec4u, i: u32, side: Side) -> vec4f { return vec4f(bitcast<vec4i>((words >> vec4u(i * 4u)) & vec4u(15u))); }

// The same for GPUs: words are masked for four quants at once, and a byte becomes a float by one instruction.
fn unpacked(words: vec4u, i: u32, side: Side) -> vec4f {
    let bytes = (words >> vec4u(i % 2u * 4u)) & vec4u(0x0f0f0f0fu);
    return vec4f((bytes >> vec4u(i / 2u * 8u)) & vec4u(255u));
}
