// cross_entropy_gradient: the gradient of the mean loss by the logits of one Element.
//
//   dz_v = cap′(z_v) · factor · ((1 + 2c·lse)·e^(cap(z_v) − lse) − (1 − ε)·[v = label] − ε / classes);  0 for a row without a label
//
// needs     p.columns in units of Element, p.smoothing (ε), p.z_loss (c); common/elements4 or elements1; common/soft_cap or soft_cap_none

fn gradient_of(z: Element, column: u32, label: i32, lse: f32, factor: f32) -> Element {
    let classes = p.columns * WIDTH;
    if (label < 0 || u32(label) >= classes) { return Element(); }
    let probability = exp(clamp(capped(widen(z)) - vec4f(lse), vec4f(-100.0), vec4f(1.0)));
    let index = vec4u(column * WIDTH) + vec4u(0u, 1u, 2u, 3u);
    let hit = select(vec4f(0.0), vec4f(1.0 - p.smoothing), index == vec4u(u32(label)));
    let slope = (1.0 + 2.0 * p.z_loss * lse) * probability - hit - vec4f(p.smoothing / f32(classes));
    return narrow(through_cap(slope * factor, widen(z)));
}
