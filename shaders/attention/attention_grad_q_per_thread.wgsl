// attention_grad_q_per_thread: the gradient of attention by its queries, an invocation for ROWS queries of one head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta);   dq = scale * sum over keys of dS * k
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dq (B, Tq, H, D) f32
// grid      one invocation for ROWS queries of a head
// needs     constants WIDTH (vectors of a row), ROWS; snippets attention, a mask, spans, a bias, a cap, a drop, vector1 or vector4
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics

@group(0) @binding(1) var<storage, read> q: array<Vector>;             // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<Vector>;          // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dq: array<Vector>;      // (B, Tq, H, D)

@compute @workgroup_size(64)
fn attention_grad_q_per_thread(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
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
    let kv_base = batch * p.keys * p.kv_heads + shared_head(head);

    var mine: array<array<Vector, WIDTH>, ROWS>;
    var upstream: array<array<Vector, WIDTH>, ROWS>;
    var acc: array<array<Vector, WIDTH>, ROWS>;
    var stat: array<vec4f, ROWS>;
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
        stat[r] = stats[stat_row(batch, query, head)];
        for (var c = 0u; c < WIDTH; c++) {
            let at = query_row(batch, query, head) * WIDTH + c;
            mine[r][c] = q[at];
            upstream[r][c] = dout[at];
        }
    }
    for (var k0 = begin / 4u * 4u; k0 < end; k0 += 4u) {
        let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = (vec4u(kv_base) + near * p.kv_heads) * WIDTH;
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        var s = array<vec4f, ROWS>();
        var dp = array<vec4f, ROWS>();
        for (var c = 0u; c < WIDTH; c++) {
            let a0 = k[at.x + c]; let a1 = k[at.y + c]; let a2 = k[at.z + c]; let a3 = k[at.w + c];
            let b0 = v[at.x + c]; let b1 = v[at.y + c]; let b2 = v[at.z + c]; let b3 = v[at.w + c];
            for (var r = 0u; r < ROWS; r++) {
                let x = mine[r][c];
                let y = upstream[r][c];
                s[r] += vec4f(vector_dot(x, a0), vector_dot(x, a1), vector_dot(x, a2), vector_dot(x, a3));
                dp[r] += vec4f(vector_dot(y, b0), vector_dot(y, b1), vector_dot(y, b2), vector_dot(y, b3));
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            let term = bias_keys(batch, head, min(first + r, p.queries - 1u), near);
            let seen = real & within(key, vec4u(start[r]), vec4u(limit[r])) & related(spans, span[r]) & bias_seen(term);
            let score = s[r] * p.scale;
            let weight = exp_below(biased(capped(score), term) - stat[r].x) * stat[r].y;
            let through = drop_keys(dp[r], seed, batch, head, first + r, k0);
            s[r] = select(vec4f(), through_cap(weight * (through - stat[r].z), score), seen);
        }
        for (var c = 0u; c < WIDTH; c++) {
            let b0 = k[at.x + c]; let b1 = k[at.y + c]; let b2 = k[at.z + c]; let b3 = k[at.w + c];
            for (var r = 0u; r < ROWS; r++) { acc[r][c] += s[r].x * b0 + s[r].y * b1 + s[r].z * b2 + s[r].w * b3; }
        }
    }
    for (var r = 0u; r < ROWS; r++) {
        if (first + r >= p.queries) { break; }
        for (var c = 0u; c < WIDTH; c++) { dq[query_row(batch, first + r, head) * WIDTH + c] = acc[r][c] * p.scale; }
    }
}
