// attention_forward_tile: fused attention, a workgroup for 32 queries of one head, with the online softmax.
//
//   s = cap(scale * q . k) + bias, where seen;   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m)
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   [key_limits]   [bias]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(s - m), or 0 for a row that sees no key,
//           whose out is 0
// grid      one workgroup for 32 queries of a head
// needs     D a multiple of 4; constant WIDTH (vectors of a row); snippets attention, attention_tile, a mask, spans, a bias, a cap, a drop;
//           9 KiB of workgroup memory
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 1

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>;      // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> tops: array<vec2f>;     // (B, H, Tq)

var<workgroup> shares: array<vec4f, 64>;         // what each invocation found of its four rows

// The vector `column` of a query's or key's row; rows past the end repeat the last, columns past it are zero.
fn load_q(batch: u32, query: u32, head: u32, column: u32) -> vec4f {
    let at = query_row(batch, min(query, p.queries - 1u), head) * WIDTH + min(column, WIDTH - 1u);
    return select(vec4f(), q[at], column < WIDTH);
}

fn kv_at(batch: u32, key: u32, head: u32, column: u32) -> u32 {
    let row = (batch * p.keys + min(key, p.keys - 1u)) * p.kv_heads + shared_head(head);
    return row * WIDTH + min(column, WIDTH - 1u);
}

fn highest(y: u32) -> vec4f {
    var most = shares[y * 8u];
    for (var t = 1u; t < 8u; t++) { most = max(most, shares[y * 8u + t]); }
    return most;
}

@compute @workgroup_size(64)
fn attention_forward_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
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
    var top = vec4f(FAR);
    var sum = vec4f();                           // of this invocation's columns
    let end = tile_limit(batch, first);
    for (var k0 = tile_start(batch, first) / 4u * 4u; k0 < end; k0 += 32u) {
        var s = Block();
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) {
                left[slot(i, x)] = load_q(batch, first + i, head, chunk * 8u + x);
                right[slot(i, x)] = k[kv_at(batch, k0 + i, head, chunk * 8u + x)];
            }
            workgroupBarrier();
            s = scores_of(s, x, y);
        }
        let key = vec4u(k0 + 4u * x) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        var seen: array<vec4<bool>, 4>;
        var best: vec4f;
        for (var i = 0u; i < 4u; i++) {
            let query = min(first + 4u * y + i, p.queries - 1u);
            let term = bias_keys(batch, head, query, near);
            let kin = related(spans, query_span(batch, query));
            let near_seen = within(key, vec4u(row_start(batch, query)), vec4u(row_limit(batch, query)));
            seen[i] = real & near_seen & kin & bias_seen(term);
            s[i] = biased(capped(s[i] * p.scale), term);
            best[i] = largest(select(vec4f(FAR), s[i], seen[i]));
        }
        shares[lane] = best;
        workgroupBarrier();
        let m = max(top, highest(y));
        let shrink = exp_below(top - m);
        top = m;
        for (var i = 0u; i < 4u; i++) {
            s[i] = select(vec4f(), exp_below(s[i] - m[i]), seen[i]);
            sum[i] = sum[i] * shrink[i] + dot(s[i], vec4f(1.0));
            left[slot(4u * y + i, x)] = drop_keys(s[i], seed, batch, head, first + 4u * y + i, key.x);
        }
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            workgroupBarrier();
            for (var i = y; i < 32u; i += 8u) { right[slot(i, x)] = v[kv_at(batch, k0 + i, head, chunk * 8u + x)]; }
            workgroupBarrier();
            for (var i = 0u; i < 4u; i++) { acc[chunk][i] *= shrink[i]; }
            acc[chunk] = weighted(acc[chunk], x, y);
        }
    }
    workgroupBarrier();
    shares[lane] = sum;
    workgroupBarrier();
    var total = vec4f();
    for (var t = 0u; t < 8u; t++) { total += shares[y * 8u + t]; }
    for (var i = 0u; i < 4u; i++) {
        let query = first + 4u * y + i;
        if (query >= p.queries) { break; }
        let share = share_of(total[i]);
        for (var chunk = 0u; chunk < CHUNKS; chunk++) {
            let column = chunk * 8u + x;
            if (column < WIDTH) { out[query_row(batch, query, head) * WIDTH + column] = acc[chunk][i] * share; }
        }
        if (x == 0u) { tops[stat_row(batch, query, head)] = vec2f(top[i], share); }
    }
}
