// attention_forward_split_k_per_thread: attention of few queries over many keys, an invocation for SPLIT keys of a query head.
//
//   m = max of s;   l = sum of exp(s - m);   partial = sum of exp(s - m) * v      s = cap(scale * q . k) + bias, where seen
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D), see attention_kv_*   [key_limits]   [bias]   [pages]
// out       partial (B, Tq, H, splits, D) f32   found (B, Tq, H, splits, 2) f32: m, l; splits of which no key is seen are not written
// grid      one invocation for a split, of ceil(Tk / SPLIT), of a query head; LANES of them a workgroup
// layout    neighbours are heads, whose keys lie side by side
// needs     constants WIDTH (vectors of a row), LANES, SPLIT; snippets attention_few and its own, vector1 or vector4
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao et al., Flash-Decoding, 2023; attention_merge puts the splits together

@group(0) @binding(4) var<storage, read_write> partials: array<Vector>;     // (B, Tq, H, splits, D)
@group(0) @binding(5) var<storage, read_write> found: array<vec2f>;        // (B, Tq, H, splits)

@compute @workgroup_size(LANES)
fn attention_forward_split_k_per_thread(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
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
    let start = row_start(batch, query);
    if (first >= limit || first + SPLIT <= start) { return; }
    let row = query_row(batch, query, head);
    var sums = over_keys(batch, head, query, max(first, start / 4u * 4u), start, limit, 4u);
    for (var c = 0u; c < WIDTH; c++) { partials[(row * splits + split) * WIDTH + c] = sums.acc[c]; }
    found[row * splits + split] = vec2f(sums.top, sums.sum);
}
