// attention_forward_per_thread: fused attention, an invocation for ROWS queries of one head, with the online softmax.
//
//   s = cap(scale * q . k) + bias, where seen;   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m)
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D), see attention_kv_*   [key_limits]   [bias]   [pages]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(s - m), or 0 for a row that sees no key,
//           whose out is 0
// grid      one invocation for ROWS queries of a head
// needs     constants WIDTH (vectors of a row), ROWS; snippets attention, keys, kv, a mask, spans, a bias, a cap, a drop, a vector
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 1

@group(0) @binding(1) var<storage, read> q: array<Vector>;             // (B, Tq, H, D)
@group(0) @binding(4) var<storage, read_write> out: array<Vector>;     // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> tops: array<vec2f>;     // (B, H, Tq)

@compute @workgroup_size(64)
fn attention_forward_per_thread(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                          @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let blocks = (p.queries + ROWS - 1u) / ROWS;
    let index = group * 64u + lane;
    if (index >= p.batch * p.heads * blocks) { return; }
    let first = index % blocks * ROWS;
    let head = index / blocks % p.heads;
    let batch = index / (blocks * p.heads);
    let seed = drop_seed(batch);
    let base = kv_base(batch, shared_head(head));

    var mine: array<array<Vector, WIDTH>, ROWS>;
    var acc: array<array<Vector, WIDTH>, ROWS>;
    var top: array<f32, ROWS>;
    var sum: array<f32, ROWS>;
    var start: array<u32, ROWS>;
    var limit: array<u32, ROWS>;
    var span: array<Span, ROWS>;
    var begin = row_start(batch, first);
    var end = 0u;
    for (var r = 0u; r < ROWS; r++) {
        let query = min(first + r, p.queries - 1u);
        start[r] = row_start(batch, query);
        limit[r] = row_limit(batch, query);
        span[r] = query_span(batch, query);
        begin = min(begin, start[r]);
        end = max(end, limit[r]);
        top[r] = FAR;
        for (var c = 0u; c < WIDTH; c++) { mine[r][c] = q[query_row(batch, query, head) * WIDTH + c]; }
    }
    for (var k0 = begin / 4u * 4u; k0 < end; k0 += 4u) {
        let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = kv_rows(base, near) * WIDTH;
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        var s = array<vec4f, ROWS>();
        for (var c = 0u; c < WIDTH; c++) {
            let b0 = key_vector(at.x + c); let b1 = key_vector(at.y + c); let b2 = key_vector(at.z + c); let b3 = key_vector(at.w + c);
            for (var r = 0u; r < ROWS; r++) {
                let a = mine[r][c];
                s[r] += vec4f(vector_dot(a, b0), vector_dot(a, b1), vector_dot(a, b2), vector_dot(a, b3));
            }
        }
        var shrink = array<f32, ROWS>();
        for (var r = 0u; r < ROWS; r++) {
            let term = bias_keys(batch, head, min(first + r, p.queries - 1u), near);
            let seen = real & within(key, vec4u(start[r]), vec4u(limit[r])) & related(spans, span[r]) & bias_seen(term);
            let score = biased(capped(s[r] * p.scale), term);
            let m = max(top[r], largest(select(vec4f(FAR), score, seen)));
            shrink[r] = exp(max(top[r] - m, -80.0));
            s[r] = select(vec4f(), exp_below(score - m), seen);
            top[r] = m;
            sum[r] = sum[r] * shrink[r] + dot(s[r], vec4f(1.0));
            s[r] = drop_keys(s[r], seed, batch, head, first + r, k0);
        }
        for (var c = 0u; c < WIDTH; c++) {
            let b0 = value_vector(at.x + c); let b1 = value_vector(at.y + c); let b2 = value_vector(at.z + c); let b3 = value_vector(at.w + c);
            for (var r = 0u; r < ROWS; r++) {
                acc[r][c] = acc[r][c] * shrink[r] + s[r].x * b0 + s[r].y * b1 + s[r].z * b2 + s[r].w * b3;
            }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        if (first + r >= p.queries) { break; }
        let share = share_of(sum[r]);
        for (var c = 0u; c < WIDTH; c++) { out[query_row(batch, first + r, head) * WIDTH + c] = acc[r][c] * share; }
        tops[stat_row(batch, first + r, head)] = vec2f(top[r], share);
    }
}
