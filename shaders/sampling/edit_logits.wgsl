// edit_logits: logits of some tokens of each row are changed or forbidden, in place.
//
//   edit e of row n is of token i = edits[n, e].x without its highest bit; for i < V, with y = x[n, i] + add
//    with the highest bit     x[n, i] ← −3e38, which no logit reaches: the token is banned
//    without                  x[n, i] ← y / divide, or y · multiply where it is negative
//
// in        edits (N, M, 4) u32: tokens of a row are distinct, 0xffffffff is no edit; add, divide, multiply are f32 as their bits
// in, out   x (N, V) f32, in place
// grid      one invocation for an edit
// numerics  two roundings

struct Params { base: u32, groups: u32, count: u32, edits: u32, vocabulary: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> edits: array<u32>;       // (N, M, 4)
@group(0) @binding(2) var<storage, read_write> x: array<f32>;     // (N, V)

@compute @workgroup_size(64)
fn edit_logits(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    let edit = edits[4u * index];
    let token = edit & 0x7fffffffu;
    if (token >= p.vocabulary) { return; }
    let at = index / p.edits * p.vocabulary + token;
    let moved = x[at] + bitcast<f32>(edits[4u * index + 1u]);
    let divided = moved / bitcast<f32>(edits[4u * index + 2u]);
    let changed = select(divided, moved * bitcast<f32>(edits[4u * index + 3u]), moved < 0.0);
    x[at] = select(changed, -3.0e38, (edit >> 31u) == 1u);
}
