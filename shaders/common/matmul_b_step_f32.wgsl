// matmul_b_step_f32: operand B in f32, 16 bytes a load.
//
// needs  stored rows, offset and distance of matrices that are multiples of 4 elements

const STEP = 4u;   // elements of a load

@group(0) @binding(2) var<storage, read> b: array<vec4f>;

// The first four elements of a load, or the next ones.
fn low_four(x: vec4f) -> vec4f { return x; }

fn high_four(x: vec4f) -> vec4f { return x; }
