// attention_grad_bias: the gradient of attention by the additive bias of its scores.
//
//   dbias[h, i, j] = sum over the batch of P * (dout . v - delta)      P = exp(S - max) / sum
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   bias
// out       dbias (H, Tq, Tk) f32, or (B, H, Tq, Tk) without the sum
// grid      one invocation for 4 queries and 4 keys of a head
// needs     constant WIDTH (vectors of a row); snippets attention, a mask, spans, attention_bias, a cap, a drop, vector1 or vector4
// numerics  f32 throughout; the sum over the batch is in order

@group(0) @binding(1) var<storage, read> q: array<Vector>;             // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<Vector>;          // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dbias: array<f32>;      // (H, Tq, Tk) or (B, H, Tq, Tk)

// dS of four queries from q0 on (rows) and four keys from k0 on (columns).
fn score_gradient(batch: u32, head: u32, q0: u32, k0: u32) -> array<vec4f, 4> {
    let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
    let near = min(key, vec4u(p.keys - 1u));
    let seed = drop_seed(batch);
    let k_at = (vec4u(batch * p.keys * p.kv_heads + shared_head(head)) + near * p.kv_heads) * WIDTH;
    var s: array<vec4f, 4>;
    var dp: array<vec4f, 4>;
    for (var c = 0u; c < WIDTH; c++) {
        let a0 = k[k_at.x + c]; let a1 = k[k_at.y + c]; let a2 = k[k_at.z + c]; let a3 = k[k_at.w + c];
        let b0 = v[k_at.x + c]; let b1 = v[k_at.y + c]; let b2 = v[k_at.z + c]; let b3 = v[k_at.w + c];
        for (var r = 0u; r < 4u; r++) {
            let at = query_row(batch, min(q0 + r, p.queries - 1u), head) * WIDTH + c;
            let x = q[at];
            let y = dout[at];
            s[r] += vec4f(vector_dot(x, a0), vector_dot(x, a1), vector_dot(x, a2), vector_dot(x, a3));
            dp[r] += vec4f(vector_dot(y, b0), vector_dot(y, b1), vector_dot(y, b2), vector_dot(y, b3));
        }
    }
    let real = keys_real(batch, near);
    let spans = key_spans(batch, near);
    for (var r = 0u; r < 4u; r++) {
        let query = min(q0 + r, p.queries - 1u);
        let stat = stats[stat_row(batch, query, head)];
        let term = bias_keys(batch, head, query, near);
        let kin = related(spans, query_span(batch, query));
        let near_seen = within(key, vec4u(row_start(batch, query)), vec4u(row_limit(batch, query)));
        let seen = real & near_seen & kin & bias_seen(term);
        let weight = exp_below(biased(capped(s[r] * p.scale), term) - stat.x) * stat.y;
        s[r] = select(vec4f(), weight * (drop_keys(dp[r], seed, batch, head, query, k0) - stat.z), seen);
    }
    return s;
}

@compute @workgroup_size(64)
fn attention_grad_bias(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                       @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let columns = (p.keys + 3u) / 4u;
    let rows = (p.queries + 3u) / 4u;
    let own = select(1u, p.batch, p.bias_batch != 0u);       // biases there are; each is shared by p.batch / own rows
    let index = group * 64u + lane;
    if (index >= own * p.heads * rows * columns) { return; }
    let k0 = index % columns * 4u;
    let q0 = index / columns % rows * 4u;
    let head = index / (columns * rows) % p.heads;
    let which = index / (columns * rows * p.heads);
    var sum: array<vec4f, 4>;
    for (var i = 0u; i < p.batch / own; i++) {
        if (tile_limit(which + i, q0) <= k0 || tile_start(which + i, q0) >= k0 + 4u) { continue; }
        let part = score_gradient(which + i, head, q0, k0);
        for (var r = 0u; r < 4u; r++) { sum[r] += part[r]; }
    }
    for (var r = 0u; r < 4u; r++) {
        if (q0 + r >= p.queries) { break; }
        let at = ((which * p.heads + head) * p.queries + q0 + r) * p.keys + k0;
        for (var j = 0u; j < 4u; j++) {
            if (k0 + j < p.keys) { dbias[at + j] = sum[r][j]; }
        }
    }
}
