// texture_storage: a tensor read through a storage texture of four elements a texel, in rows of 1024 texels.

alias Texels = texture_storage_2d<rgba32float, read>;

fn texel(t: Texels, i: u32) -> vec4f { return textureLoad(t, vec2u(i & 1023u, i >> 10u)); }
