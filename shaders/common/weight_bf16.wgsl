// weight_bf16: weights stored as the upper halves of f32, two a word, the element of the lower index in the low half.

fn widen2(word: u32) -> vec2f { return bitcast<vec2f>(vec2u(word << 16u, word & 0xffff0000u)); }
