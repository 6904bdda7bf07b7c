// bench_multiply_add: multiplications and additions in registers and nothing else, the ceiling of arithmetic.
//
//   a_0 = x[i] + (0, 1, …),  a ← a · factor + term, `rounds` · UNROLL times,  out[i] = Σ a
//
//   Every invocation keeps CHAINS sums of four that do not wait for each other.
//
// in         x (n) f32 as vec4
// out        out (n) f32 as vec4
// grid       one invocation for one vec4, LANES a workgroup
// constants  LANES; CHAINS; UNROLL: steps between two looks at the counter
// numerics   f32; with |factor| < 1 errors do not grow

struct Params { base: u32, groups: u32, vectors: u32, rounds: u32, factor: f32, term: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;           // (n / 4)
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;   // (n / 4)

@compute @workgroup_size(LANES)
fn bench_multiply_add(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * LANES + lane;
    if (i >= p.vectors) { return; }
    var a: array<vec4f, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) { a[c] = x[i] + f32(c); }
    for (var r = 0u; r < p.rounds; r++) {
        for (var u = 0u; u < UNROLL; u++) {
            for (var c = 0u; c < CHAINS; c++) { a[c] = a[c] * p.factor + p.term; }
        }
    }
    var sum: vec4f;
    for (var c = 0u; c < CHAINS; c++) { sum += a[c]; }
    out[i] = sum;
}
