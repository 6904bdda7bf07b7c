// attention_kv_q8_0: keys and values in blocks of 32 of 8 bits with a scale; the scales stand behind all quants.
//
// needs  constant KV_SCALES (the word of the first scale)

@group(0) @binding(2) var<storage, read> k: array<u32>;                // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<u32>;                // (B, Tk, Hkv, D)

fn scaled_quants(word: u32, scale: u32) -> vec4f {
    return bitcast<f32>(scale) * vec4f(bitcast<vec4i>(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
}

// A vector of them by its number.
fn key_vector(i: u32) -> vec4f { return scaled_quants(k[i], k[KV_SCALES + i / 8u]); }
fn value_vector(i: u32) -> vec4f { return scaled_quants(v[i], v[KV_SCALES + i / 8u]); }
