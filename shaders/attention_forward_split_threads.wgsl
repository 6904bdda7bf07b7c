// attention_forward_split_threads: attention of few queries over many keys, an invocation for SPLIT keys of a query head.
//
//   m = max of s;   l = sum of exp(s - m);   partial = sum of exp(s - m) * v      s = scale * q . k + bias, where seen
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   [visible]   [bias]
// out       partial (B, Tq, H, splits, D) f32   found (B, Tq, H, splits, 2) f32: m, l; splits past the limit are not written
// grid      one invocation for a split, of ceil(Tk / SPLIT), of a query head; LANES of them a workgroup
// layout    neighbours are heads, whose keys lie side by side
// needs     constants WIDTH (vectors of a row), LANES, SPLIT; snippets attention, a mask, spans, a bias, vector1 or vector4
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao et al., Flash-Decoding, 2023; attention_merge puts the splits together

@group(0) @binding(1) var<storage, read> q: array<Vector>;                 // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;                 // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;                 // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read_write> partials: array<Vector>;     // (B, Tq, H, splits, D)
@group(0) @binding(5) var<storage, read_write> found: array<vec2f>;        // (B, Tq, H, splits)

@compute @workgroup_size(LANES)
fn attention_forward_split_threads(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                                   @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * LANES + lane;
    let splits = (p.keys + SPLIT - 1u) / SPLIT;
    let head = index % p.heads;
    let split = index / p.heads % splits;
    let query = index / (p.heads * splits) % p.queries;
    let batch = index / (p.heads * splits * p.queries);
    if (batch >= p.batch) { return; }
    let first = split * SPLIT;
    let limit = min(row_limit(batch, query), first + SPLIT);
    if (first >= limit) { return; }
    let kv_base = batch * p.keys * p.kv_heads + shared_head(head);
    let row = query_row(batch, query, head);
    let span = query_span(batch, query);

    var mine: array<Vector, WIDTH>;
    var acc: array<Vector, WIDTH>;
    var top = FAR;
    var sum = 0.0;
    for (var c = 0u; c < WIDTH; c++) { mine[c] = q[row * WIDTH + c] * p.scale; }
    for (var k0 = first; k0 < limit; k0 += 4u) {
        let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = (vec4u(kv_base) + near * p.kv_heads) * WIDTH;
        var s: vec4f;
        for (var c = 0u; c < WIDTH; c++) {
            let a = mine[c];
            s += vec4f(inner(a, k[at.x + c]), inner(a, k[at.y + c]), inner(a, k[at.z + c]), inner(a, k[at.w + c]));
        }
        s += bias_keys(batch, head, query, near);
        let seen = keys_real(batch, near) & (key < vec4u(limit)) & related(key_spans(batch, near), span);
        let m = max(top, largest(select(vec4f(FAR), s, seen)));
        let shrink = exp(max(top - m, -80.0));
        let e = select(vec4f(), exp_below(s - m), seen);
        top = m;
        sum = sum * shrink + dot(e, vec4f(1.0));
        for (var c = 0u; c < WIDTH; c++) {
            acc[c] = acc[c] * shrink + e.x * v[at.x + c] + e.y * v[at.y + c] + e.z * v[at.z + c] + e.w * v[at.w + c];
        }
    }
    for (var c = 0u; c < WIDTH; c++) { partials[(row * splits + split) * WIDTH + c] = acc[c]; }
    found[row * splits + split] = vec2f(top, sum);
}
