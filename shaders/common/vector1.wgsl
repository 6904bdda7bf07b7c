// vector1: rows as single floats, for any width.

alias Vector = f32;
fn vector_dot(a: Vector, b: Vector) -> f32 { return a * b; }
