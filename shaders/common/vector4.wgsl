// vector4: rows as vec4f, for widths that are multiples of four.

alias Vector = vec4f;
fn inner(a: Vector, b: Vector) -> f32 { return dot(a, b); }
