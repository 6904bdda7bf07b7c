// attention_grad_kv_tile: the gradients of attention by its keys and values, a workgroup for ROWS keys of one key head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta)
//   dk = scale * sum over queries of dS * q      dv = sum over queries of P * dout
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dk, dv (B, Tk, Hkv, D) f32
// grid      one workgroup for ROWS keys; it sums over the query heads that share the key head
// needs     D a multiple of 4; constants of attention_tile, OWNERS 128; snippets attention, attention_tile, a mask, spans, a bias, a cap,
//           a drop; attention_tile's workgroup memory; 7 storage bindings, 2 more for key_limits and bias
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics
//
// Tiles are transposed, keys by queries, so that P and dS lie as the next products want them. A step takes 32 queries: role 0 computes
// k . q, P and dv, role 1 v . dout, dS and dk.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<vec4f>;           // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dk: array<vec4f>;       // (B, Tk, Hkv, D)
@group(0) @binding(7) var<storage, read_write> dv: array<vec4f>;       // (B, Tk, Hkv, D)

const QUERIES = 256u / PITCH;                    // whose rows a half of `right` holds at a time

// Four queries side by side; of those past the end `limit` is 0.
struct Queries { query: vec4u, near: vec4u, start: vec4u, limit: vec4u, spans: Spans, top: vec4f, share: vec4f, delta: vec4f }

fn queries_from(batch: u32, head: u32, first: u32) -> Queries {
    let query = vec4u(first) + vec4u(0u, 1u, 2u, 3u);
    let near = min(query, vec4u(p.queries - 1u));
    let stat = vec4u(stat_row(batch, 0u, head)) + near;
    let a = stats[stat.x]; let b = stats[stat.y]; let c = stats[stat.z]; let d = stats[stat.w];
    let limit = vec4u(row_limit(batch, near.x), row_limit(batch, near.y), row_limit(batch, near.z), row_limit(batch, near.w));
    return Queries(query, near, row_starts(batch, near), select(vec4u(), limit, query < vec4u(p.queries)), query_spans(batch, near),
                   vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y), vec4f(a.z, b.z, c.z, d.z));
}

// Stores P of one key and four queries, as dropped, and times the derivative of the soft cap.
fn put_weights(at: u32, products: vec4f, seed: Seed, batch: u32, head: u32, row: u32, four: Queries) {
    let key = min(row, p.keys - 1u);
    let term = bias_queries(batch, head, four.near, key);
    let kin = keys_real(batch, vec4u(key)) & related(four.spans, key_span(batch, key));
    let seen = within(vec4u(key), four.start, four.limit) & kin & bias_seen(term);
    let score = products * p.scale;
    let weight = select(vec4f(), exp_below(biased(capped(score), term) - four.top) * four.share, seen);
    left[at] = drop_queries(weight, seed, batch, head, four.query.x, key);
    left[TILE + at] = through_cap(weight, score);
}

// Makes dS of it, from v . dout.
fn put_gradients(at: u32, products: vec4f, seed: Seed, batch: u32, head: u32, row: u32, four: Queries) {
    left[TILE + at] *= drop_queries(products, seed, batch, head, four.query.x, min(row, p.keys - 1u)) - four.delta;
}

fn store(at: u32, role: u32, sum: vec4f) {
    if (role == 0u) { dv[at] = sum; } else { dk[at] = sum * p.scale; }
}

fn store_row(batch: u32, key: u32, kv_head: u32, column: u32, role: u32, a: vec4f, b: vec4f) {
    if (key >= p.keys) { return; }
    let at = kv_at(batch, key, kv_head, 0u) + column;
    if (column < WIDTH) { store(at, role, a); }
    if (PARTS > 1u && column + LANES < WIDTH) { store(at + LANES, role, b); }
}

@compute @workgroup_size(256)
fn attention_grad_kv_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                          @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.keys + ROWS - 1u) / ROWS;
    let first = alternate(group % tiles, tiles) * ROWS;
    let kv_head = group / tiles % p.kv_heads;
    let batch = group / (tiles * p.kv_heads);
    let seed = drop_seed(batch);
    let x = lane % 8u; let y = lane / 8u % 16u; let role = lane / 128u;
    let row = first + SCORE_ROWS * y;
    let column = lane % LANES; let owner = lane % 128u / LANES;
    let steps = (p.queries + 31u) / 32u;
    let shared_by = p.heads / p.kv_heads;

    var acc: Outputs;                            // of dv, or of dk
    for (var step = 0u; step < shared_by * steps; step++) {
        let head = kv_head * shared_by + step / steps;
        let q0 = step % steps * 32u;
        if (tile_limit(batch, q0) <= first || tile_start(batch, q0) >= first + ROWS) { continue; }
        var s = Block();
        for (var chunk = 0u; chunk < rolled(CHUNKS); chunk++) {
            let source = chunk * 8u + x;
            for (var i = 0u; i < ROWS; i += 32u) {
                let at = i + lane / 8u;
                if (ROWS >= 32u || at < ROWS) {
                    let where_k = kv_at(batch, first + at, kv_head, source);
                    left[slot(at, x)] = inside(k[where_k], source);
                    left[TILE + slot(at, x)] = inside(v[where_k], source);
                }
            }
            let where_q = q_at(batch, q0 + lane / 8u, head, source);
            right[chunk_slot(lane / 8u, x)] = q[where_q];
            right[CHUNK + chunk_slot(lane / 8u, x)] = dout[where_q];
            workgroupBarrier();
            s = add_scores(s, TILE * role, CHUNK * role, x, y);
            workgroupBarrier();
        }
        let four = queries_from(batch, head, q0 + 4u * x);
        let at = slot(SCORE_ROWS * y, x);
        if (role == 0u) {
            put_weights(at, s[0], seed, batch, head, row, four);
            if (SCORE_ROWS > 1u) { put_weights(at + NEXT, s[1], seed, batch, head, row + 1u, four); }
            if (SCORE_ROWS > 2u) {
                put_weights(at + 2u * NEXT, s[2], seed, batch, head, row + 2u, four);
                put_weights(at + 3u * NEXT, s[3], seed, batch, head, row + 3u, four);
            }
        }
        workgroupBarrier();
        if (role == 1u) {
            put_gradients(at, s[0], seed, batch, head, row, four);
            if (SCORE_ROWS > 1u) { put_gradients(at + NEXT, s[1], seed, batch, head, row + 1u, four); }
            if (SCORE_ROWS > 2u) {
                put_gradients(at + 2u * NEXT, s[2], seed, batch, head, row + 2u, four);
                put_gradients(at + 3u * NEXT, s[3], seed, batch, head, row + 3u, four);
            }
        }
        for (var t = 0u; t < rolled(32u); t += QUERIES) {
            let where_q = q_at(batch, q0 + t + lane / PITCH, head, lane % PITCH);
            right[lane] = dout[where_q];
            right[256u + lane] = q[where_q];
            workgroupBarrier();
            acc = add_outputs(acc, TILE * role, t, 256u * role, QUERIES, column, owner);
            workgroupBarrier();
        }
    }
    let key = first + OUT_ROWS * owner;
    store_row(batch, key, kv_head, column, role, acc[0][0], acc[1][0]);
    if (OUT_ROWS > 1u) { store_row(batch, key + 1u, kv_head, column, role, acc[0][1], acc[1][1]); }
    if (OUT_ROWS > 2u) {
        store_row(batch, key + 2u, kv_head, column, role, acc[0][2], acc[1][2]);
        store_row(batch, key + 3u, kv_head, column, role, acc[0][3], acc[1][3]);
    }
}
