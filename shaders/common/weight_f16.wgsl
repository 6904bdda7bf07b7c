// weight_f16: weights stored as 16-bit IEEE floats, two a word, the element of the lower index in the low half.

fn widen2(word: u32) -> vec2f { return unpack2x16float(word); }
