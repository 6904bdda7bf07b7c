// attention_forward_shuffle: fused attention, a subgroup for ROWS queries of one head, with the online softmax.
//
//   s = cap(scale * q . k) + bias, where seen;   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m)
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   [key_limits]   [bias]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(s - m), or 0 for a row that sees no key,
//           whose out is 0
// grid      one workgroup, which is one subgroup, for ROWS queries of a head
// needs     subgroups of LANES (4 or 8) lanes; D a multiple of 4; constants WIDTH (vectors of a row), LANES, R;
//           snippets attention, attention_shuffle, a mask, spans, a bias, a cap, a drop
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 1
//
// On CPU drivers a shuffle with a constant lane is the only cheap broadcast: lanes load different rows and share them.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>;      // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> tops: array<vec2f>;     // (B, H, Tq)

@compute @workgroup_size(LANES)
fn attention_forward_shuffle(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                             @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let blocks = (p.queries + ROWS - 1u) / ROWS;
    let first = alternate(group % blocks, blocks) * ROWS;
    let head = group / blocks % p.heads;
    let batch = group / (blocks * p.heads);
    let seed = drop_seed(batch);
    let kv_base = batch * p.keys * p.kv_heads + shared_head(head);
    let last = p.queries - 1u;

    var acc: array<Tile, PARTS>;
    var top: array<array<f32, LANES>, R>;        // running maximum
    var sum: array<array<f32, LANES>, R>;        // running sum, this lane's share
    var q_at: array<u32, R>;
    var limit: array<u32, R>;
    for (var r = 0u; r < R; r++) {
        let query = min(first + r * LANES + lane, last);
        q_at[r] = query_row(batch, query, head) * WIDTH;
        limit[r] = row_limit(batch, query);
        for (var j = 0u; j < LANES; j++) { top[r][j] = FAR; }
    }
    // Entered once at least: a driver reads what it did not set in a loop that no lane enters.
    let begin = tile_start(batch, first) / 4u * 4u;
    let end = max(tile_limit(batch, first), begin + 1u);
    for (var k0 = begin; k0 < end; k0 += BLOCK) {
        let key = vec4u(k0 + lane * 4u) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = (vec4u(kv_base) + near * p.kv_heads) * WIDTH;
        var s = Tile();                          // scores, then probabilities
        for (var c = 0u; c < WIDTH; c++) {
            let b = transpose(mat4x4f(k[at.x + c], k[at.y + c], k[at.z + c], k[at.w + c]));
            for (var r = 0u; r < R; r++) { add_rows(&s, r, q[q_at[r] + c], b); }
        }
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        for (var r = 0u; r < R; r++) {
            for (var j = 0u; j < LANES; j++) {
                let query = min(first + r * LANES + j, last);
                let kin = related(spans, query_span(batch, query));
                let term = bias_keys(batch, head, query, near);
                let near_seen = within(key, vec4u(row_start(batch, query)), vec4u(subgroupShuffle(limit[r], j)));
                let seen = real & near_seen & kin & bias_seen(term);
                let score = biased(capped(s[r][j] * p.scale), term);
                let m = max(top[r][j], max_over_lanes(largest(select(vec4f(FAR), score, seen))));
                let shrink = exp(max(top[r][j] - m, -80.0));
                s[r][j] = select(vec4f(), exp_below(score - m), seen);
                top[r][j] = m;
                sum[r][j] = sum[r][j] * shrink + dot(s[r][j], vec4f(1.0));
                s[r][j] = drop_keys(s[r][j], seed, batch, head, query, key.x);
                for (var part = 0u; part < PARTS; part++) { acc[part][r][j] *= shrink; }
            }
        }
        for (var x = 0u; x < LANES; x++) {       // the keys that lane x holds
            let keys = min(vec4u(k0 + x * 4u) + vec4u(0u, 1u, 2u, 3u), vec4u(p.keys - 1u));
            let rows = (vec4u(kv_base) + keys * p.kv_heads) * WIDTH;
            for (var part = 0u; part < PARTS; part++) {
                let row = rows + min(part * LANES + lane, WIDTH - 1u);
                let b = mat4x4f(v[row.x], v[row.y], v[row.z], v[row.w]);
                for (var r = 0u; r < R; r++) {
                    for (var j = 0u; j < LANES; j++) { acc[part][r][j] += combine(subgroupShuffle(s[r][j], x), b); }
                }
            }
        }
    }
    for (var r = 0u; r < R; r++) {
        for (var j = 0u; j < LANES; j++) {
            let query = first + r * LANES + j;
            let total = sum_over_lanes(sum[r][j]);
            if (query > last) { continue; }
            let share = share_of(total);
            for (var part = 0u; part < PARTS; part++) {
                let column = part * LANES + lane;
                if (column < WIDTH) { out[query_row(batch, query, head) * WIDTH + column] = acc[part][r][j] * share; }
            }
            if (lane == 0u) { tops[stat_row(batch, query, head)] = vec2f(top[r][j], share); }
        }
    }
}
