// attention_grad_q_tile: the gradient of attention by its queries, a workgroup for ROWS queries of one head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta);   dq = scale * sum over keys of dS * k
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dq (B, Tq, H, D) f32
// grid      one workgroup for ROWS queries of a head
// needs     D a multiple of 4; constants of attention_tile, OWNERS 256; snippets attention, attention_tile, a mask, spans, a bias, a cap,
//           a drop; attention_tile's workgroup memory
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics
//
// A step takes 32 keys: role 0 computes q . k and P, role 1 dout . v and dS.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<vec4f>;           // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dq: array<vec4f>;       // (B, Tq, H, D)

const KEYS = min(32u, 512u / PITCH);             // whose rows `right` holds at a time

// Stores P of one query and four keys, times the derivative of the soft cap.
fn put_weights(at: u32, products: vec4f, batch: u32, head: u32, row: u32, keys: Keys) {
    let query = min(row, p.queries - 1u);
    let stat = stats[stat_row(batch, query, head)];
    let term = bias_keys(batch, head, query, keys.near);
    let score = products * p.scale;
    let weight = exp_below(biased(capped(score), term) - stat.x) * stat.y;
    left[at] = select(vec4f(), through_cap(weight, score), sees(batch, query, keys, term));
}

// Makes dS of it, from dout . v.
fn put_gradients(at: u32, products: vec4f, seed: Seed, batch: u32, head: u32, row: u32, key: u32) {
    let query = min(row, p.queries - 1u);
    left[at] *= drop_keys(products, seed, batch, head, query, key) - stats[stat_row(batch, query, head)].z;
}

fn store(batch: u32, query: u32, head: u32, column: u32, a: vec4f, b: vec4f) {
    if (query >= p.queries) { return; }
    let at = query_row(batch, query, head) * WIDTH + column;
    if (column < WIDTH) { dq[at] = a * p.scale; }
    if (PARTS > 1u && column + LANES < WIDTH) { dq[at + LANES] = b * p.scale; }
}

@compute @workgroup_size(256)
fn attention_grad_q_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                         @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.queries + ROWS - 1u) / ROWS;
    let first = alternate(group % tiles, tiles) * ROWS;
    let head = group / tiles % p.heads;
    let batch = group / (tiles * p.heads);
    let kv_head = shared_head(head);
    let seed = drop_seed(batch);
    let x = lane % 8u; let y = lane / 8u % 16u; let role = lane / 128u;
    let row = first + SCORE_ROWS * y;
    let column = lane % LANES; let owner = lane / LANES;

    var acc: Outputs;
    let end = rows_limit(batch, first);
    for (var k0 = rows_start(batch, first) / 4u * 4u; k0 < end; k0 += 32u) {
        var s = Block();
        for (var chunk = 0u; chunk < rolled(CHUNKS); chunk++) {
            let source = chunk * 8u + x;
            for (var i = 0u; i < ROWS; i += 32u) {
                let at = i + lane / 8u;
                if (ROWS >= 32u || at < ROWS) {
                    let where_q = q_at(batch, first + at, head, source);
                    left[slot(at, x)] = inside(q[where_q], source);
                    left[TILE + slot(at, x)] = inside(dout[where_q], source);
                }
            }
            let where_k = kv_at(batch, k0 + lane / 8u, kv_head, source);
            right[chunk_slot(lane / 8u, x)] = k[where_k];
            right[CHUNK + chunk_slot(lane / 8u, x)] = v[where_k];
            workgroupBarrier();
            s = add_scores(s, TILE * role, CHUNK * role, x, y);
            workgroupBarrier();
        }
        let keys = keys_from(batch, k0 + 4u * x);
        let at = slot(SCORE_ROWS * y, x);
        if (role == 0u) {
            put_weights(at, s[0], batch, head, row, keys);
            if (SCORE_ROWS > 1u) { put_weights(at + NEXT, s[1], batch, head, row + 1u, keys); }
            if (SCORE_ROWS > 2u) {
                put_weights(at + 2u * NEXT, s[2], batch, head, row + 2u, keys);
                put_weights(at + 3u * NEXT, s[3], batch, head, row + 3u, keys);
            }
        }
        workgroupBarrier();
        if (role == 1u) {
            put_gradients(at, s[0], seed, batch, head, row, keys.key.x);
            if (SCORE_ROWS > 1u) { put_gradients(at + NEXT, s[1], seed, batch, head, row + 1u, keys.key.x); }
            if (SCORE_ROWS > 2u) {
                put_gradients(at + 2u * NEXT, s[2], seed, batch, head, row + 2u, keys.key.x);
                put_gradients(at + 3u * NEXT, s[3], seed, batch, head, row + 3u, keys.key.x);
            }
        }
        for (var key = 0u; key < rolled(32u); key += KEYS) {
            for (var i = 0u; i < KEYS * PITCH; i += 256u) {
                let at = i + lane;
                right[at] = k[kv_at(batch, k0 + key + at / PITCH, kv_head, at % PITCH)];
            }
            workgroupBarrier();
            acc = add_outputs(acc, 0u, key, 0u, KEYS, column, owner);
            workgroupBarrier();
        }
    }
    let query = first + OUT_ROWS * owner;
    store(batch, query, head, column, acc[0][0], acc[1][0]);
    if (OUT_ROWS > 1u) { store(batch, query + 1u, head, column, acc[0][1], acc[1][1]); }
    if (OUT_ROWS > 2u) {
        store(batch, query + 2u, head, column, acc[0][2], acc[1][2]);
        store(batch, query + 3u, head, column, acc[0][3], acc[1][3]);
    }
}
