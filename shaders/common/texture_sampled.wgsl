// texture_sampled: a tensor read through a sampled texture of four elements a texel, in rows of 1024 texels.

alias Texels = texture_2d<f32>;

fn texel(t: Texels, i: u32) -> vec4f { return textureLoad(t, vec2u(i & 1023u, i >> 10u), 0); }
