// vector4: rows as vec4f, for widths that are multiples of four.

alias Vector = vec4f;
fn vector_dot(a: Vector, b: Vector) -> f32 { return dot(a, b); }
