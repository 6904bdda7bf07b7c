// attention_grad_kv_shuffle: the gradients of attention by its keys and values, a subgroup for ROWS keys of one key head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta)
//   dk = scale * sum over queries of dS * q      dv = sum over queries of P * dout
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dk, dv (B, Tk, Hkv, D) f32
// grid      one workgroup, which is one subgroup, for ROWS keys; it sums over the query heads that share the key head
// needs     subgroups of LANES (4 or 8) lanes; D a multiple of 4; constants WIDTH (vectors of a row), LANES, R;
//           snippets attention, attention_shuffle, a mask, spans, a bias, a cap, a drop; 7 storage bindings, 2 more for key_limits and bias
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

// How many keys each of four queries sees; none for those past the end.
fn limits(batch: u32, query: vec4u, near: vec4u) -> vec4u {
    let limit = vec4u(row_limit(batch, near.x), row_limit(batch, near.y), row_limit(batch, near.z),
                      row_limit(batch, near.w));
    return select(vec4u(), limit, query < vec4u(p.queries));
}

@compute @workgroup_size(LANES)
fn attention_grad_kv_shuffle(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                             @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let blocks = (p.keys + ROWS - 1u) / ROWS;
    let first = alternate(group % blocks, blocks) * ROWS;
    let kv_head = group / blocks % p.kv_heads;
    let batch = group / (blocks * p.kv_heads);
    let seed = drop_seed(batch);
    let kv_base = batch * p.keys * p.kv_heads + kv_head;
    let last = p.keys - 1u;
    let steps = (p.queries + BLOCK - 1u) / BLOCK;
    let shared_by = p.heads / p.kv_heads;

    var k_acc: array<Tile, PARTS>;
    var v_acc: array<Tile, PARTS>;
    for (var step = 0u; step < shared_by * steps; step++) {
        let head = kv_head * shared_by + step / steps;
        let q0 = step % steps * BLOCK;
        if (tile_limit(batch, q0) <= first || tile_start(batch, q0) >= first + ROWS) { continue; }
        let query = vec4u(q0 + lane * 4u) + vec4u(0u, 1u, 2u, 3u);
        let near = min(query, vec4u(p.queries - 1u));
        let at = (vec4u(query_row(batch, 0u, head)) + near * p.heads) * WIDTH;
        var s = Tile();                          // k . q, then P
        var ds = Tile();                         // v . dout, then dS
        for (var c = 0u; c < WIDTH; c++) {
            let b = transpose(mat4x4f(q[at.x + c], q[at.y + c], q[at.z + c], q[at.w + c]));
            for (var r = 0u; r < R; r++) {
                add_rows(&s, r, k[(kv_base + min(first + r * LANES + lane, last) * p.kv_heads) * WIDTH + c], b);
            }
        }
        for (var c = 0u; c < WIDTH; c++) {
            let b = transpose(mat4x4f(dout[at.x + c], dout[at.y + c], dout[at.z + c], dout[at.w + c]));
            for (var r = 0u; r < R; r++) {
                add_rows(&ds, r, v[(kv_base + min(first + r * LANES + lane, last) * p.kv_heads) * WIDTH + c], b);
            }
        }
        let limit = limits(batch, query, near);
        let start = row_starts(batch, near);
        let spans = query_spans(batch, near);
        let stat = vec4u(stat_row(batch, 0u, head)) + near;
        let s0 = stats[stat.x]; let s1 = stats[stat.y]; let s2 = stats[stat.z]; let s3 = stats[stat.w];
        for (var r = 0u; r < R; r++) {
            for (var j = 0u; j < LANES; j++) {
                let key = min(first + r * LANES + j, last);
                let term = bias_queries(batch, head, near, key);
                let kin = keys_real(batch, vec4u(key)) & related(spans, key_span(batch, key));
                let seen = within(vec4u(key), start, limit) & kin & bias_seen(term);
                let score = s[r][j] * p.scale;
                let below = exp_below(biased(capped(score), term) - vec4f(s0.x, s1.x, s2.x, s3.x));
                s[r][j] = select(vec4f(), below * vec4f(s0.y, s1.y, s2.y, s3.y), seen);
                let through = drop_queries(ds[r][j], seed, batch, head, query.x, key);
                ds[r][j] = through_cap(s[r][j] * (through - vec4f(s0.z, s1.z, s2.z, s3.z)), score);
                s[r][j] = drop_queries(s[r][j], seed, batch, head, query.x, key);
            }
        }
        for (var x = 0u; x < LANES; x++) {       // the queries that lane x holds
            let queries = min(vec4u(q0 + x * 4u) + vec4u(0u, 1u, 2u, 3u), vec4u(p.queries - 1u));
            let rows = (vec4u(query_row(batch, 0u, head)) + queries * p.heads) * WIDTH;
            for (var part = 0u; part < PARTS; part++) {
                let row = rows + min(part * LANES + lane, WIDTH - 1u);
                let b = mat4x4f(dout[row.x], dout[row.y], dout[row.z], dout[row.w]);
                for (var r = 0u; r < R; r++) {
                    for (var j = 0u; j < LANES; j++) { v_acc[part][r][j] += combine(subgroupShuffle(s[r][j], x), b); }
                }
            }
        }
        for (var x = 0u; x < LANES; x++) {       // the queries that lane x holds
            let queries = min(vec4u(q0 + x * 4u) + vec4u(0u, 1u, 2u, 3u), vec4u(p.queries - 1u));
            let rows = (vec4u(query_row(batch, 0u, head)) + queries * p.heads) * WIDTH;
            for (var part = 0u; part < PARTS; part++) {
                let row = rows + min(part * LANES + lane, WIDTH - 1u);
                let b = mat4x4f(q[row.x], q[row.y], q[row.z], q[row.w]);
                for (var r = 0u; r < R; r++) {
                    for (var j = 0u; j < LANES; j++) { k_acc[part][r][j] += combine(subgroupShuffle(ds[r][j], x), b); }
                }
            }
        }
    }
    for (var r = 0u; r < R; r++) {
        for (var j = 0u; j < LANES; j++) {
            let key = first + r * LANES + j;
            if (key > last) { continue; }
            for (var part = 0u; part < PARTS; part++) {
                let column = part * LANES + lane;
                if (column < WIDTH) {
                    let at = (kv_base + key * p.kv_heads) * WIDTH + column;
                    dk[at] = k_acc[part][r][j] * p.scale;
                    dv[at] = v_acc[part][r][j];
                }
            }
        }
    }
}
