// weights_by_16: quantised weights d step(q) + m, d and m of 16 of them.
//
// needs  WORD_WEIGHTS, steps, high_bits, HAS_MINIMUM and half_scale (weight_*)

// Weights i to i + 3, which divide by 4, from the word that holds their low bits.
fn weights4(word: u32, i: u32) -> vec4f {
    let dm = half_scale(i / 32u, (i / 16u) & 1u);
    let high = high_bits(i / 32u, i % 32u / WORD_WEIGHTS);
    return dm.x * steps(vec4u(word), vec4u(0u, 1u, 2u, 3u) + i % WORD_WEIGHTS, vec4u(high)) + dm.y;
}

// What the quants of a word of each of four blocks need in addition: their high bits, from the lowest on, and d and m.
struct Side { high: vec4u, d: vec4f, m: vec4f }
fn side(at: vec4u, word: u32) -> Side {
    let second = word * WORD_WEIGHTS / 16u;
    let x = half_scale(at.x, second);
    let y = half_scale(at.y, second);
    let z = half_scale(at.z, second);
    let t = half_scale(at.w, second);
    return Side(vec4u(high_bits(at.x, word), high_bits(at.y, word), high_bits(at.z, word), high_bits(at.w, word)),
        vec4f(x.x, y.x, z.x, t.x), vec4f(x.y, y.y, z.y, t.y));
}

// Weight number i of each of four words.
fn quants(words: vec4u, i: u32, side: Side) -> vec4f {
    let x = side.d * steps(words, vec4u(i), side.high);
    if (HAS_MINIMUM) { return x + side.m; }
    return x;
}

// The same for GPUs.
fn unpacked(words: vec4u, i: u32, side: Side) -> vec4f { return quants(words, i, side); }

// A weight is its quant already.
const HAS_OFFSET = false;
fn step_and_offset(block: u32) -> vec2f { return vec2f(1.0, 0.0); }
