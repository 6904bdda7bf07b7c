// matmul_b_step_half: operand B in f16 or bf16, two elements a word, 16 bytes a load.
//
// needs  widen2 (weight_f16 or weight_bf16); stored rows, offset and distance of matrices that are multiples of 8 elements

const STEP = 8u;   // elements of a load

@group(0) @binding(2) var<storage, read> b: array<vec4u>;

// The first four elements of a load, or the next ones.
fn low_four(x: vec4u) -> vec4f { return vec4f(widen2(x.x), widen2(x.y)); }

fn high_four(x: vec4u) -> vec4f { return vec4f(widen2(x.z), widen2(x.w)); }
