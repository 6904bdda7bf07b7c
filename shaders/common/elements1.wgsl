// elements1: bindings of f32 are seen as they are. elements4 has the same names for sizes that 4 divides.

const WIDTH: u32 = 1u;
alias Element = f32;

fn widen(e: Element) -> vec4f { return vec4f(e); }
fn narrow(v: vec4f) -> Element { return v.x; }

// The sum and the largest of the parts of an element.
fn total(e: Element) -> f32 { return e; }
fn largest(e: Element) -> f32 { return e; }
