// attention_grad_bias_by_distance: the gradient of attention by a bias that goes by the distance of key and query.
//
//   dbias[h, d] = sum over the batch and the queries i of P * (dout . v - delta) at key j = i + d - (Tq - 1)
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   bias
// out       dbias (H, Tq + Tk - 1) f32
// grid      one invocation for 4 distances of a head
// needs     constant WIDTH (vectors of a row); snippets attention, a mask, spans, attention_bias, a cap, a drop, vector1 or vector4
// numerics  f32 throughout; the sum goes over the batch, and in it over the queries, in order

@group(0) @binding(1) var<storage, read> q: array<Vector>;             // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;             // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<Vector>;          // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dbias: array<f32>;      // (H, Tq + Tk - 1)

// dS of a query and the four keys from k0 on, some of which may be out of range on either side.
fn score_gradient(batch: u32, head: u32, query: u32, k0: i32) -> vec4f {
    let key = vec4i(k0) + vec4i(0, 1, 2, 3);
    let last = i32(p.keys) - 1;
    let near = vec4u(clamp(key, vec4i(0), vec4i(last)));
    let k_at = (vec4u(batch * p.keys * p.kv_heads + shared_head(head)) + near * p.kv_heads) * WIDTH;
    let q_at = query_row(batch, query, head) * WIDTH;
    var s: vec4f;
    var dp: vec4f;
    for (var c = 0u; c < WIDTH; c++) {
        let x = q[q_at + c];
        let y = dout[q_at + c];
        s += vec4f(vector_dot(x, k[k_at.x + c]), vector_dot(x, k[k_at.y + c]), vector_dot(x, k[k_at.z + c]), vector_dot(x, k[k_at.w + c]));
        dp += vec4f(vector_dot(y, v[k_at.x + c]), vector_dot(y, v[k_at.y + c]), vector_dot(y, v[k_at.z + c]), vector_dot(y, v[k_at.w + c]));
    }
    let seed = drop_seed(batch);
    let drop = vec4f(drop_factor(seed, batch, head, query, near.x), drop_factor(seed, batch, head, query, near.y),
                     drop_factor(seed, batch, head, query, near.z), drop_factor(seed, batch, head, query, near.w));
    let stat = stats[stat_row(batch, query, head)];
    let term = bias_keys(batch, head, query, near);
    let there = (key >= vec4i(0)) & (key <= vec4i(last));
    let kin = related(key_spans(batch, near), query_span(batch, query));
    let near_seen = within(near, vec4u(row_start(batch, query)), vec4u(row_limit(batch, query)));
    let seen = there & keys_real(batch, near) & near_seen & kin & bias_seen(term);
    let weight = exp_below(biased(capped(s * p.scale), term) - stat.x) * stat.y;
    return select(vec4f(), weight * (dp * drop - stat.z), seen);
}

@compute @workgroup_size(64)
fn attention_grad_bias_by_distance(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                                   @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let distances = p.queries + p.keys - 1u;
    let columns = (distances + 3u) / 4u;
    let index = group * 64u + lane;
    if (index >= p.heads * columns) { return; }
    let head = index / columns;
    let d0 = index % columns * 4u;
    // The queries that have a key at one of these distances.
    let begin = select(0u, p.queries - 4u - d0, p.queries > d0 + 4u);
    let end = min(p.queries, distances - d0);
    var sum: vec4f;
    for (var batch = 0u; batch < p.batch; batch++) {
        for (var query = begin; query < end; query++) {
            let k0 = i32(query + d0) - i32(p.queries) + 1;
            if (i32(row_limit(batch, query)) <= k0 || i32(row_start(batch, query)) >= k0 + 4) { continue; }
            sum += score_gradient(batch, head, query, k0);
        }
    }
    for (var j = 0u; j < 4u; j++) {
        if (d0 + j < distances) { dbias[head * distances + d0 + j] = sum[j]; }
    }
}
