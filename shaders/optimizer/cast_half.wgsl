// cast_half: rounds f32 to f16 or bf16, two elements a word.
//
//   out[i] = round(x[i]) to nearest, ties to even; larger values become the largest finite one
//
// in        x (4 n or more) f32 as vec4
// out       out (2 n words), the element of the lower index in the low half
// constants BRAIN: bool, bf16 instead of f16
// grid      one invocation for one vec4
// numerics  exact, by integer arithmetic: drivers round pack2x16float in ways of their own. NaN stays NaN, infinity saturates.

struct Params { base: u32, groups: u32, vectors: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4u>;               // (n)
@group(0) @binding(2) var<storage, read_write> out: array<vec2u>;       // (n)

fn to_bf16(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    let sign = (bits >> 16u) & 0x8000u;
    let rounded = min((size + 0x7fffu + ((size >> 16u) & 1u)) >> 16u, 0x7f7fu);
    return sign | select(rounded, 0x7fc0u, size > 0x7f800000u);
}

fn to_f16(bits: u32) -> u32 {
    let size = bits & 0x7fffffffu;
    let sign = (bits >> 16u) & 0x8000u;
    // Normal results: rebias the exponent and round away 13 bits. Sizes below the range wrap and are not used.
    let normal = min((size - 0x38000000u + 0xfffu + ((size >> 13u) & 1u)) >> 13u, 0x7bffu);
    // Subnormal results: the mantissa shifted to units of 2^-24.
    let mantissa = (size & 0x7fffffu) | 0x800000u;
    let shift = clamp(126u - min(size >> 23u, 112u), 1u, 31u);
    let whole = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let tie = 1u << (shift - 1u);
    let up = rest > tie || (rest == tie && (whole & 1u) == 1u);
    let small = whole + select(0u, 1u, up);
    let value = select(normal, small, size < 0x38800000u);
    return sign | select(value, 0x7e00u, size > 0x7f800000u);
}

fn to_half(bits: u32) -> u32 {
    if (BRAIN) { return to_bf16(bits); }
    return to_f16(bits);
}

@compute @workgroup_size(64)
fn cast_half(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.vectors) { return; }
    let word = x[i];
    out[i] = vec2u(to_half(word.x) | (to_half(word.y) << 16u), to_half(word.z) | (to_half(word.w) << 16u));
}
