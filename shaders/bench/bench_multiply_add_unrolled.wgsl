// bench_multiply_add_unrolled: bench_multiply_add with two chains, written out, for compilers that leave arrays in memory.
//
//   a_0 = x[i], b_0 = x[i] + 1,  a ← a · factor + term and b alike, 16 `rounds` times,  out[i] = a + b
//
// in         x (n) f32 as vec4
// out        out (n) f32 as vec4
// grid       one invocation for one vec4, LANES a workgroup
// constants  LANES
// numerics   f32, fused or not; with |factor| < 1 errors do not grow

struct Params { base: u32, groups: u32, vectors: u32, rounds: u32, factor: f32, term: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;           // (n / 4)
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;   // (n / 4)

@compute @workgroup_size(LANES)
fn bench_multiply_add_unrolled(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * LANES + lane;
    if (i >= p.vectors) { return; }
    let factor = vec4f(p.factor);
    let term = vec4f(p.term);
    var a = x[i];
    var b = a + 1.0;
    for (var r = 0u; r < p.rounds; r++) {
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
        a = fma(a, factor, term); b = fma(b, factor, term);
    }
    out[i] = a + b;
}
