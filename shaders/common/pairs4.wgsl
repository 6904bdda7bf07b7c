// pairs4: numbers stored in pairs, four pairs at a time: (a0, b0, a1, b1), (a2, b2, a3, b3). See pairs1.

alias Element = vec4f;

struct Pairs { first: Element, second: Element }

fn unzip(low: Element, high: Element) -> Pairs {
    return Pairs(vec4f(low.xz, high.xz), vec4f(low.yw, high.yw));
}

fn zip(pairs: Pairs) -> Pairs {
    let a = pairs.first;
    let b = pairs.second;
    return Pairs(vec4f(a.x, b.x, a.y, b.y), vec4f(a.z, b.z, a.w, b.w));
}
