// attention_kv_f32: keys and values in f32.
//
// needs  Vector (vector1, vector4)

@group(0) @binding(2) var<storage, read> k: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;             // (B, Tk, Hkv, D)

// A vector of them by its number.
fn key_vector(i: u32) -> Vector { return k[i]; }
fn value_vector(i: u32) -> Vector { return v[i]; }
