// steps_q5: what quants of five bits stand for: themselves.

// Quants i of words, with their fifth bits.
fn steps(words: vec4u, i: vec4u, high: vec4u) -> vec4f {
    return vec4f(((words >> (i * 4u)) & vec4u(15u)) | (((high >> i) & vec4u(1u)) << vec4u(4u)));
}
