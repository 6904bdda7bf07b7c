// attention_grad_q_tile: the gradient of attention by its queries, a workgroup for 32 queries of one head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta);   dq = scale * sum over keys of dS * k
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dq (B, Tq, H, D) f32
// grid      one workgroup for 32 queries of a head
// needs     D a multiple of 4; constant WIDTH (vectors of a row); snippets attention, attention_tile, a mask, spans, a bias, a cap, a drop;
//           8 KiB of workgroup memory
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<vec4f>;           // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dq: array<vec4f>;       // (B, Tq, H, D)

fn q_at(batch: u32, query: u32, head: u32, column: u32) -> u32 {
    return query_row(batch, min(query, p.queries - 1u), head) * WIDTH + min(column, WIDTH - 1u);
}

fn kv_at(batch: u32, key: u32, head: u32, column: u32) -> u32 {
    let row = (batch * p.keys + min(key, p.keys - 1u)) * p.kv_heads + shared_head(head);
    return row * WIDTH + min(column, WIDTH - 1u);
}

@compute @workgroup_size(64)
fn attention_grad_q_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                         @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.queries + 31u) / 32u;
    let first = alternate(group % tiles, tiles) * 32u;
    let head = group / tiles % p.heads;
    let batch = group / (tiles * p.heads);
    let seed = drop_seed(batch);
    let x = lane % 8u;
    let y = lane / 8u;

    var acc: array<Block, CHUNKS>;
    let end = tile_limit(batch, first);
    for (var k0 = tile_start(batch, first) / 4u * 4u; k0 < end; k0 += 32u) {
        var s = Block();                         // q . k
        var ds = Block();                        // dout . v, then dS
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            let column = chunk * 8u + x;
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) {
                left[slot(i, x)] = select(vec4f(), q[q_at(batch, first + i, head, column)], column < WIDTH);
                right[slot(i, x)] = k[kv_at(batch, k0 + i, head, column)];
            }
            workgroupBarrier();
            s = scores_of(s, x, y);
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) {
                left[slot(i, x)] = select(vec4f(), dout[q_at(batch, first + i, head, column)], column < WIDTH);
                right[slot(i, x)] = v[kv_at(batch, k0 + i, head, column)];
            }
            workgroupBarrier();
            ds = scores_of(ds, x, y);
        }
        let key = vec4u(k0 + 4u * x) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            let query = min(first + 4u * y + i, p.queries - 1u);
            let stat = stats[stat_row(batch, query, head)];
            let term = bias_keys(batch, head, query, near);
            let kin = related(spans, query_span(batch, query));
            let near_seen = within(key, vec4u(row_start(batch, query)), vec4u(row_limit(batch, query)));
            let seen = real & near_seen & kin & bias_seen(term);
            let score = s[i] * p.scale;
            let weight = exp_below(biased(capped(score), term) - stat.x) * stat.y;
            let through = drop_keys(ds[i], seed, batch, head, query, key.x);
            left[slot(4u * y + i, x)] = select(vec4f(), through_cap(weight * (through - stat.z), score), seen);
        }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) { right[slot(i, x)] = k[kv_at(batch, k0 + i, head, chunk * 8u + x)]; }
            workgroupBarrier();
            acc[chunk] = weighted(acc[chunk], x, y);
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let query = first + 4u * y + i;
        if (query >= p.queries) { break; }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            let column = chunk * 8u + x;
            if (column < WIDTH) { dq[query_row(batch, query, head) * WIDTH + column] = acc[chunk][i] * p.scale; }
        }
    }
}
