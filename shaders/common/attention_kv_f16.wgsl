// attention_kv_f16: keys and values in f16, four of them in two words.

@group(0) @binding(2) var<storage, read> k: array<vec2u>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec2u>;              // (B, Tk, Hkv, D)

fn widened(words: vec2u) -> vec4f { return vec4f(unpack2x16float(words.x), unpack2x16float(words.y)); }

// A vector of them by its number.
fn key_vector(i: u32) -> vec4f { return widened(k[i]); }
fn value_vector(i: u32) -> vec4f { return widened(v[i]); }
