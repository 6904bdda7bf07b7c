// attention_forward_tile: fused attention, a workgroup for ROWS queries of one head, with the online softmax.
//
//   s = cap(scale * q . k) + bias, where seen;   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m)
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D), see attention_kv_*   [key_limits]   [bias]   [pages]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(s - m), or 0 for a row that sees no key,
//           whose out is 0
// grid      one workgroup for ROWS queries of a head
// needs     D a multiple of 4; constants of attention_tile, OWNERS 256; snippets attention, attention_tile, keys, kv, a mask, spans, a bias, a cap,
//           a drop; 512 bytes of workgroup memory beside attention_tile's
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 1
//
// A step takes 64 keys, of which each role scores 32.

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(4) var<storage, read_write> out: array<vec4f>;      // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> tops: array<vec2f>;     // (B, H, Tq)

const KEYS = 512u / PITCH;                       // whose values `right` holds at a time
// Of SCORE_ROWS rows each:
var<workgroup> highest: array<vec4f, 16>;        // scores so far
var<workgroup> factors: array<vec4f, 16>;        // of outputs

// The scores of one query and four keys, FAR where it does not see a key.
fn scores(products: vec4f, batch: u32, head: u32, row: u32, keys: Keys) -> vec4f {
    let query = min(row, p.queries - 1u);
    let term = bias_keys(batch, head, query, keys.near);
    return select(vec4f(FAR), biased(capped(products * p.scale), term), sees(batch, query, keys, term));
}

fn weights(score: vec4f, top: f32) -> vec4f { return select(exp_below(score - top), vec4f(), score <= vec4f(FAR)); }
fn total(x: vec4f) -> f32 { return dot(x, vec4f(1.0)); }
fn factor(row: u32) -> f32 { return factors[row / SCORE_ROWS][row % SCORE_ROWS]; }

fn scaled(block: Block, row: u32) -> Block {
    var product = block;
    product[0] *= factor(row);
    if (OUT_ROWS > 1u) { product[1] *= factor(row + 1u); }
    if (OUT_ROWS > 2u) { product[2] *= factor(row + 2u); product[3] *= factor(row + 3u); }
    return product;
}

fn store(batch: u32, query: u32, head: u32, column: u32, a: vec4f, b: vec4f) {
    if (query >= p.queries) { return; }
    let at = query_row(batch, query, head) * WIDTH + column;
    if (column < WIDTH) { out[at] = a; }
    if (PARTS > 1u && column + LANES < WIDTH) { out[at + LANES] = b; }
}

@compute @workgroup_size(256)
fn attention_forward_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                          @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = (p.queries + ROWS - 1u) / ROWS;
    let first = alternate(group % tiles, tiles) * ROWS;
    let head = group / tiles % p.heads;
    let batch = group / (tiles * p.heads);
    let seed = drop_seed(batch);
    let x = lane % 8u; let y = lane / 8u % 16u; let role = lane / 128u;
    let row = first + SCORE_ROWS * y;
    let column = lane % LANES; let owner = lane / LANES;

    var acc: Outputs;
    if (lane < 16u) { highest[lane] = vec4f(FAR); }
    var sum = vec4f();                           // of this invocation's columns
    let end = rows_limit(batch, first);
    for (var k0 = rows_start(batch, first) / 4u * 4u; k0 < end; k0 += 64u) {
        var s = Block();
        for (var chunk = 0u; chunk < rolled(CHUNKS); chunk++) {
            let source = chunk * 8u + x;
            for (var i = 0u; i < ROWS; i += 32u) {
                let at = i + lane / 8u;
                if (ROWS >= 32u || at < ROWS) { left[slot(at, x)] = inside(q[q_at(batch, first + at, head, source)], source); }
            }
            for (var i = 0u; i < 64u; i += 32u) {
                right[i / 32u * CHUNK + chunk_slot(lane / 8u, x)] = key_vector(kv_at(batch, k0 + i + lane / 8u, shared_head(head), source));
            }
            workgroupBarrier();
            s = add_scores(s, 0u, CHUNK * role, x, y);
            workgroupBarrier();
        }
        let keys = keys_from(batch, k0 + 32u * role + 4u * x);
        let top = highest[y];
        var m = top;
        s[0] = scores(s[0], batch, head, row, keys);
        m.x = max(m.x, largest(s[0]));
        if (SCORE_ROWS > 1u) {
            s[1] = scores(s[1], batch, head, row + 1u, keys);
            m.y = max(m.y, largest(s[1]));
        }
        if (SCORE_ROWS > 2u) {
            s[2] = scores(s[2], batch, head, row + 2u, keys);
            s[3] = scores(s[3], batch, head, row + 3u, keys);
            m = max(m, vec4f(FAR, FAR, largest(s[2]), largest(s[3])));
        }
        right[17u * y + 8u * role + x] = m;
        workgroupBarrier();
        for (var t = 0u; t < rolled(16u); t++) { m = max(m, right[17u * y + t]); }
        let at = TILE * role + slot(SCORE_ROWS * y, x);
        s[0] = weights(s[0], m.x);
        left[at] = drop_keys(s[0], seed, batch, head, row, keys.key.x);
        if (SCORE_ROWS > 1u) {
            s[1] = weights(s[1], m.y);
            left[at + NEXT] = drop_keys(s[1], seed, batch, head, row + 1u, keys.key.x);
        }
        if (SCORE_ROWS > 2u) {
            s[2] = weights(s[2], m.z);
            s[3] = weights(s[3], m.w);
            left[at + 2u * NEXT] = drop_keys(s[2], seed, batch, head, row + 2u, keys.key.x);
            left[at + 3u * NEXT] = drop_keys(s[3], seed, batch, head, row + 3u, keys.key.x);
        }
        let shrink = exp_below(top - m);
        sum = sum * shrink + vec4f(total(s[0]), total(s[1]), total(s[2]), total(s[3]));
        if (lane == 8u * y) { factors[y] = shrink; highest[y] = m; }
        workgroupBarrier();
        acc[0] = scaled(acc[0], OUT_ROWS * owner);
        if (PARTS > 1u) { acc[1] = scaled(acc[1], OUT_ROWS * owner); }
        for (var key = 0u; key < rolled(64u); key += KEYS) {
            for (var i = 0u; i < 512u; i += 256u) {
                let at = i + lane;
                right[at] = value_vector(kv_at(batch, k0 + key + at / PITCH, shared_head(head), at % PITCH));
            }
            workgroupBarrier();
            acc = add_outputs(acc, 0u, key, 0u, KEYS, column, owner);
            workgroupBarrier();
        }
    }
    right[17u * y + 8u * role + x] = sum;
    workgroupBarrier();
    sum = right[17u * y];
    for (var t = 1u; t < 16u; t++) { sum += right[17u * y + t]; }
    if (lane == 8u * y) { factors[y] = vec4f(share_of(sum.x), share_of(sum.y), share_of(sum.z), share_of(sum.w)); }
    workgroupBarrier();
    if (lane < ROWS && first + lane < p.queries) {
        tops[stat_row(batch, first + lane, head)] = vec2f(highest[lane / SCORE_ROWS][lane % SCORE_ROWS], factor(lane));
    }
    acc[0] = scaled(acc[0], OUT_ROWS * owner);
    if (PARTS > 1u) { acc[1] = scaled(acc[1], OUT_ROWS * owner); }
    let query = first + OUT_ROWS * owner;
    store(batch, query, head, column, acc[0][0], acc[1][0]);
    if (OUT_ROWS > 1u) { store(batch, query + 1u, head, column, acc[0][1], acc[1][1]); }
    if (OUT_ROWS > 2u) {
        store(batch, query + 2u, head, column, acc[0][2], acc[1][2]);
        store(batch, query + 3u, head, column, acc[0][3], acc[1][3]);
    }
}
