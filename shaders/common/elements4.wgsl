// elements4: bindings of f32 are seen as vec4f. For sizes that 4 divides; elements1 has the same names for all others.

const WIDTH: u32 = 4u;
alias Element = vec4f;

fn widen(e: Element) -> vec4f { return e; }
fn narrow(v: vec4f) -> Element { return v; }

// The sum and the largest of the parts of an element.
fn total(e: Element) -> f32 { return (e.x + e.y) + (e.z + e.w); }
fn largest(e: Element) -> f32 { return max(max(e.x, e.y), max(e.z, e.w)); }
