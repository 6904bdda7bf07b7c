// attention_delta: the values of each row for the backward kernels: its largest score, its sum, and the row sum of out * dout.
//
//   stats[b, h, i] = (tops[b, h, i], sum over d of out[b, i, h, d] * dout[b, i, h, d], 0)
//
// in        out (B, Tq, H, D) f32   dout (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: max, 1 / sum
// out       stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0: a vector of four is one load
// grid      one invocation for a row
// needs     constant WIDTH (vectors of a row); snippets vector1 or vector4
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), the D of algorithm 2

struct Params { base: u32, groups: u32, batch: u32, queries: u32, heads: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> out: array<Vector>;           // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> dout: array<Vector>;          // (B, Tq, H, D)
@group(0) @binding(3) var<storage, read> tops: array<vec2f>;           // (B, H, Tq)
@group(0) @binding(4) var<storage, read_write> stats: array<vec4f>;    // (B, H, Tq)

@compute @workgroup_size(64)
fn attention_delta(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * 64u + lane;
    if (row >= p.batch * p.queries * p.heads) { return; }
    var delta = 0.0;
    for (var c = 0u; c < WIDTH; c++) { delta += vector_dot(out[row * WIDTH + c], dout[row * WIDTH + c]); }
    let head = row % p.heads;
    let query = row / p.heads % p.queries;
    let batch = row / (p.heads * p.queries);
    let at = (batch * p.heads + head) * p.queries + query;
    stats[at] = vec4f(tops[at], delta, 0.0);
}
