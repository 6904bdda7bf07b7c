// attention_merge: attention from the partial sums over splits of the keys.
//
//   m = max of m[i];   out = sum of exp(m[i] - m) * partial[i] / sum of exp(m[i] - m) * l[i]
//
// in        partials (B, Tq, H, splits, D) f32   found (B, Tq, H, splits, 2) f32: m, l   [key_limits]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(m[i] - m) * l[i], or 0 for a row that sees no
//           key, whose out is 0
// grid      one invocation for a vector of a row
// needs     constants WIDTH (vectors of a row), SPLIT (keys of a split); snippets attention, a mask, vector1 or vector4
// numerics  f32 throughout; splits in order
// paper     Dao et al., Flash-Decoding, 2023

@group(0) @binding(1) var<storage, read> partials: array<Vector>;      // (B, Tq, H, splits, D)
@group(0) @binding(2) var<storage, read> found: array<vec2f>;          // (B, Tq, H, splits)
@group(0) @binding(3) var<storage, read_write> out: array<Vector>;     // (B, Tq, H, D)
@group(0) @binding(4) var<storage, read_write> tops: array<vec2f>;     // (B, H, Tq)

@compute @workgroup_size(64)
fn attention_merge(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    if (index >= p.batch * p.queries * p.heads * WIDTH) { return; }
    let row = index / WIDTH;
    let head = row % p.heads;
    let query = row / p.heads % p.queries;
    let batch = row / (p.heads * p.queries);
    let splits = (p.keys + SPLIT - 1u) / SPLIT;
    let begin = row_start(batch, query) / SPLIT;
    let used = min((row_limit(batch, query) + SPLIT - 1u) / SPLIT, splits);

    var m = FAR;
    for (var i = begin; i < used; i++) { m = max(m, found[row * splits + i].x); }
    var total = 0.0;
    var acc: Vector;
    for (var i = begin; i < used; i++) {
        let at = row * splits + i;
        let share = select(0.0, exp(max(found[at].x - m, -80.0)), found[at].y > 0.0);
        total += share * found[at].y;
        acc += share * partials[at * WIDTH + index % WIDTH];
    }
    let share_of_all = share_of(total);
    out[index] = acc * share_of_all;
    if (index % WIDTH == 0u) { tops[stat_row(batch, query, head)] = vec2f(m, share_of_all); }
}
