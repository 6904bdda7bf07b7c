// attention_grad_kv_per_thread: the gradient of attention by its keys or by its values, an invocation for ROWS keys.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta)
//   dk = scale * sum over queries of dS * q   (OF_KEYS)      dv = sum over queries of P * dout
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       grad (B, Tk, Hkv, D) f32
// grid      one invocation for ROWS keys of a key head; it sums over the query heads that share it
// needs     constants WIDTH (vectors of a row), ROWS, OF_KEYS; snippets attention, a mask, spans, a bias, a cap, a drop, vector1 or vector4
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics

@group(0) @binding(1) var<storage, read> q: array<Vector>;             // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<Vector>;          // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> grad: array<Vector>;    // (B, Tk, Hkv, D)

// A vector of the sum over queries: scores' gradients times q, or weights times dout.
fn spread(at: u32) -> Vector {
    if (OF_KEYS) { return q[at]; }
    return dout[at];
}

@compute @workgroup_size(64)
fn attention_grad_kv_per_thread(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                          @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let blocks = (p.keys + ROWS - 1u) / ROWS;
    let index = group * 64u + lane;
    if (index >= p.batch * p.kv_heads * blocks) { return; }
    let first = index % blocks * ROWS;
    let kv_head = index / blocks % p.kv_heads;
    let batch = index / (blocks * p.kv_heads);
    let seed = drop_seed(batch);
    let shared_by = p.heads / p.kv_heads;

    var mine: array<array<Vector, WIDTH>, ROWS>;      // k
    var value: array<array<Vector, WIDTH>, ROWS>;     // v, if the gradient is that of the keys
    var acc: array<array<Vector, WIDTH>, ROWS>;
    var span: array<Span, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
        span[r] = key_span(batch, min(first + r, p.keys - 1u));
        let at = ((batch * p.keys + min(first + r, p.keys - 1u)) * p.kv_heads + kv_head) * WIDTH;
        for (var c = 0u; c < WIDTH; c++) {
            mine[r][c] = k[at + c];
            if (OF_KEYS) { value[r][c] = v[at + c]; }
        }
    }
    let blocks_of_queries = (p.queries + 3u) / 4u;
    for (var step = 0u; step < shared_by * blocks_of_queries; step++) {
        let head = kv_head * shared_by + step / blocks_of_queries;
        let q0 = step % blocks_of_queries * 4u;
        if (tile_limit(batch, q0) <= first || tile_start(batch, q0) >= first + ROWS) { continue; }
        let query = vec4u(q0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(query, vec4u(p.queries - 1u));
        let row = vec4u(query_row(batch, 0u, head)) + near * p.heads;
        let at = row * WIDTH;
        let stat = vec4u(stat_row(batch, 0u, head)) + near;
        let s0 = stats[stat.x]; let s1 = stats[stat.y]; let s2 = stats[stat.z]; let s3 = stats[stat.w];
        let limit = select(vec4u(), vec4u(row_limit(batch, near.x), row_limit(batch, near.y), row_limit(batch, near.z),
                                          row_limit(batch, near.w)), query < vec4u(p.queries));
        let start = row_starts(batch, near);
        let spans = query_spans(batch, near);
        var s = array<vec4f, ROWS>();
        var dp = array<vec4f, ROWS>();
        for (var c = 0u; c < WIDTH; c++) {
            let a0 = q[at.x + c]; let a1 = q[at.y + c]; let a2 = q[at.z + c]; let a3 = q[at.w + c];
            for (var r = 0u; r < ROWS; r++) {
                let x = mine[r][c];
                s[r] += vec4f(vector_dot(x, a0), vector_dot(x, a1), vector_dot(x, a2), vector_dot(x, a3));
            }
            if (OF_KEYS) {
                let b0 = dout[at.x + c]; let b1 = dout[at.y + c]; let b2 = dout[at.z + c]; let b3 = dout[at.w + c];
                for (var r = 0u; r < ROWS; r++) {
                    let y = value[r][c];
                    dp[r] += vec4f(vector_dot(y, b0), vector_dot(y, b1), vector_dot(y, b2), vector_dot(y, b3));
                }
            }
        }
        for (var r = 0u; r < ROWS; r++) {
            let key = min(first + r, p.keys - 1u);
            let term = bias_queries(batch, head, near, key);
            let kin = keys_real(batch, vec4u(key)) & related(spans, span[r]);
            let seen = within(vec4u(key), start, limit) & kin & bias_seen(term);
            let score = s[r] * p.scale;
            let below = exp_below(biased(capped(score), term) - vec4f(s0.x, s1.x, s2.x, s3.x));
            let weight = select(vec4f(), below * vec4f(s0.y, s1.y, s2.y, s3.y), seen);
            if (OF_KEYS) {
                let through = drop_queries(dp[r], seed, batch, head, q0, key);
                s[r] = through_cap(weight * (through - vec4f(s0.z, s1.z, s2.z, s3.z)), score);
            } else {
                s[r] = drop_queries(weight, seed, batch, head, q0, key);
            }
        }
        for (var c = 0u; c < WIDTH; c++) {
            let b0 = spread(at.x + c); let b1 = spread(at.y + c); let b2 = spread(at.z + c); let b3 = spread(at.w + c);
            for (var r = 0u; r < ROWS; r++) { acc[r][c] += s[r].x * b0 + s[r].y * b1 + s[r].z * b2 + s[r].w * b3; }
        }
    }
    let factor = select(1.0, p.scale, OF_KEYS);
    for (var r = 0u; r < ROWS; r++) {
        if (first + r >= p.keys) { break; }
        let at = ((batch * p.keys + first + r) * p.kv_heads + kv_head) * WIDTH;
        for (var c = 0u; c < WIDTH; c++) { grad[at + c] = acc[r][c] * factor; }
    }
}
