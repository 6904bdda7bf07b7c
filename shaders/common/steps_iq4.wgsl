// steps_iq4: what the quants of iq4_nl and iq4_xs stand for.

// The steps of quants i of words: of each four, from the lowest on, -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f {
    let q = words >> (i * 4u);
    let second = (q & vec4u(4u)) != vec4u(0u);
    let negative = select(vec4u(0xbfad9881u), vec4u(0xf6eaddcfu), second);
    let positive = select(vec4u(0x26190d01u), vec4u(0x71594535u), second);
    let four = select(negative, positive, (q & vec4u(8u)) != vec4u(0u));
    return vec4f(bitcast<vec4i>(four << (vec4u(24u) - (q & vec4u(3u)) * 8u)) >> vec4u(24u));
}

// There are none.
fn high_bits(block: u32, word: u32) -> u32 { return 0u; }
