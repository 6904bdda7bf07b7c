// attention_grad_kv_tile: the gradients of attention by its keys and values, a workgroup for 32 keys of one key head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta)
//   dk = scale * sum over queries of dS * q      dv = sum over queries of P * dout
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dk, dv (B, Tk, Hkv, D) f32
// grid      one workgroup for 32 keys; it sums over the query heads that share the key head
// needs     D a multiple of 4; constant WIDTH (vectors of a row); snippets attention, attention_tile, a mask, spans, a bias, a cap, a drop;
//           8 KiB of workgroup memory; 7 storage bindings, 2 more for key_limits and bias
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics
//
// Tiles are transposed, keys by queries, so that P and dS lie as the next products want them.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<vec4f>;           // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dk: array<vec4f>;       // (B, Tk, Hkv, D)
@group(0) @binding(7) var<storage, read_write> dv: array<vec4f>;       // (B, Tk, Hkv, D)

fn q_at(batch: u32, query: u32, head: u32, column: u32) -> u32 {
    return query_row(batch, min(query, p.queries - 1u), head) * WIDTH + min(column, WIDTH - 1u);
}

fn kv_at(batch: u32, key: u32, kv_head: u32, column: u32) -> u32 {
    let row = (batch * p.keys + min(key, p.keys - 1u)) * p.kv_heads + kv_head;
    return row * WIDTH + min(column, WIDTH - 1u);
}

@compute @workgroup_size(64)
fn attention_grad_kv_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                          @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.keys + 31u) / 32u;
    let first = alternate(group % tiles, tiles) * 32u;
    let kv_head = group / tiles % p.kv_heads;
    let batch = group / (tiles * p.kv_heads);
    let seed = drop_seed(batch);
    let x = lane % 8u;
    let y = lane / 8u;
    let steps = (p.queries + 31u) / 32u;
    let shared_by = p.heads / p.kv_heads;

    var k_acc: array<Block, CHUNKS>;
    var v_acc: array<Block, CHUNKS>;
    for (var step = 0u; step < shared_by * steps; step++) {
        let head = kv_head * shared_by + step / steps;
        let q0 = step % steps * 32u;
        if (tile_limit(batch, q0) <= first || tile_start(batch, q0) >= first + 32u) { continue; }
        var s = Block();                         // k . q, then P
        var ds = Block();                        // v . dout, then dS
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            let column = chunk * 8u + x;
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) {
                left[slot(i, x)] = select(vec4f(), k[kv_at(batch, first + i, kv_head, column)], column < WIDTH);
                right[slot(i, x)] = q[q_at(batch, q0 + i, head, column)];
            }
            workgroupBarrier();
            s = scores_of(s, x, y);
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) {
                left[slot(i, x)] = select(vec4f(), v[kv_at(batch, first + i, kv_head, column)], column < WIDTH);
                right[slot(i, x)] = dout[q_at(batch, q0 + i, head, column)];
            }
            workgroupBarrier();
            ds = scores_of(ds, x, y);
        }
        let query = vec4u(q0 + 4u * x) + vec4u(0u, 1u, 2u, 3u);
        let near = min(query, vec4u(p.queries - 1u));
        let stat = vec4u(stat_row(batch, 0u, head)) + near;
        let s0 = stats[stat.x]; let s1 = stats[stat.y]; let s2 = stats[stat.z]; let s3 = stats[stat.w];
        let limit = select(vec4u(), vec4u(row_limit(batch, near.x), row_limit(batch, near.y), row_limit(batch, near.z),
                                          row_limit(batch, near.w)), query < vec4u(p.queries));
        let start = row_starts(batch, near);
        let spans = query_spans(batch, near);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            let key = min(first + 4u * y + i, p.keys - 1u);
            let term = bias_queries(batch, head, near, key);
            let kin = keys_real(batch, vec4u(key)) & related(spans, key_span(batch, key));
            let seen = within(vec4u(key), start, limit) & kin & bias_seen(term);
            let score = s[i] * p.scale;
            let below = exp_below(biased(capped(score), term) - vec4f(s0.x, s1.x, s2.x, s3.x));
            s[i] = select(vec4f(), below * vec4f(s0.y, s1.y, s2.y, s3.y), seen);
            let through = drop_queries(ds[i], seed, batch, head, query.x, key);
            ds[i] = through_cap(s[i] * (through - vec4f(s0.z, s1.z, s2.z, s3.z)), score);
            left[slot(4u * y + i, x)] = drop_queries(s[i], seed, batch, head, query.x, key);
        }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) { right[slot(i, x)] = dout[q_at(batch, q0 + i, head, chunk * 8u + x)]; }
            workgroupBarrier();
            v_acc[chunk] = weighted(v_acc[chunk], x, y);
        }
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) { left[slot(4u * y + i, x)] = ds[i]; }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) { right[slot(i, x)] = q[q_at(batch, q0 + i, head, chunk * 8u + x)]; }
            workgroupBarrier();
            k_acc[chunk] = weighted(k_acc[chunk], x, y);
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let key = first + 4u * y + i;
        if (key >= p.keys) { break; }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            let column = chunk * 8u + x;
            if (column < WIDTH) {
                let at = kv_at(batch, key, kv_head, column);
                dk[at] = k_acc[chunk][i] * p.scale;
                dv[at] = v_acc[chunk][i];
            }
        }
    }
}
