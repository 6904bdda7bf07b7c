// weights_by_32: quantised weights d step(q) + m, d and m of 32 of them. A word of quants is the low four bits of eight.
//
// needs  steps, high_bits and step_and_offset (weight_*)

const WORD_WEIGHTS = 8u;

// Weights i to i + 3, which divide by 4, from the word that holds their low bits.
fn weights4(word: u32, i: u32) -> vec4f {
    let dm = step_and_offset(i / 32u);
    let high = high_bits(i / 32u, (i / 8u) & 3u);
    return dm.x * steps(vec4u(word), vec4u(0u, 1u, 2u, 3u) + (i & 4u), vec4u(high)) + dm.y;
}

// What the quants of a word of each of four blocks need in addition: their high bits, from the lowest on.
struct Side { high: vec4u }
fn side(at: vec4u, word: u32) -> Side {
    return Side(vec4u(high_bits(at.x, word), high_bits(at.y, word), high_bits(at.z, word), high_bits(at.w, word)));
}

// The step of quant number i of each of four words.
fn quants(words: vec4u, i: u32, side: Side) -> vec4f { return steps(words, vec4u(i), side.high); }

// The same for GPUs.
fn unpacked(words: vec4u, i: u32, side: Side) -> vec4f { return quants(words, i, side); }
