// texture_elements: elements of a tensor that is read through a texture.
//
// needs  Texels and texel (texture_storage or texture_sampled); a texel behind the last element

// Elements first to first + 3; `aligned` says that `first` is a multiple of 4.
fn elements4(t: Texels, first: u32, aligned: bool) -> vec4f {
    let low = texel(t, first / 4u);
    if (aligned) { return low; }
    let high = texel(t, first / 4u + 1u);
    // By one element, then by two more.
    let odd = (first & 1u) != 0u;
    let a = select(low, vec4f(low.yzw, high.x), odd);
    let b = select(high.xy, high.yz, odd);
    return select(a, vec4f(a.zw, b), (first & 2u) != 0u);
}
