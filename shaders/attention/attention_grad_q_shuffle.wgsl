// attention_grad_q_shuffle: the gradient of attention by its queries, a subgroup for ROWS queries of one head.
//
//   P = exp(S - max) / sum;   dS = P * (dout . v - delta);   dq = scale * sum over keys of dS * k
//
// in        q, dout (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   stats (B, H, Tq, 4) f32: max, 1 / sum, delta, 0   [key_limits]   [bias]
// out       dq (B, Tq, H, D) f32
// grid      one workgroup, which is one subgroup, for ROWS queries of a head
// needs     subgroups of LANES (4 or 8) lanes; D a multiple of 4; constants WIDTH (vectors of a row), LANES, R;
//           snippets attention, attention_shuffle, a mask, spans, a bias, a cap, a drop
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao, FlashAttention-2, 2023 (arXiv 2307.08691), algorithm 2, split so that no sum needs atomics

@group(0) @binding(1) var<storage, read> q: array<vec4f>;              // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<vec4f>;              // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read> dout: array<vec4f>;           // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read> stats: array<vec4f>;          // (B, H, Tq)
@group(0) @binding(6) var<storage, read_write> dq: array<vec4f>;       // (B, Tq, H, D)

@compute @workgroup_size(LANES)
fn attention_grad_q_shuffle(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                            @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let blocks = (p.queries + ROWS - 1u) / ROWS;
    let first = alternate(group % blocks, blocks) * ROWS;
    let head = group / blocks % p.heads;
    let batch = group / (blocks * p.heads);
    let seed = drop_seed(batch);
    let kv_base = batch * p.keys * p.kv_heads + shared_head(head);
    let last = p.queries - 1u;

    var acc: array<Tile, PARTS>;
    var q_at: array<u32, R>;
    var limit: array<u32, R>;
    var stat: array<vec4f, R>;
    for (var r = 0u; r < R; r++) {
        let query = min(first + r * LANES + lane, last);
        q_at[r] = query_row(batch, query, head) * WIDTH;
        limit[r] = row_limit(batch, query);
        stat[r] = stats[stat_row(batch, query, head)];
    }
    // Entered once at least: a driver reads what it did not set in a loop that no lane enters.
    let begin = tile_start(batch, first) / 4u * 4u;
    let end = max(tile_limit(batch, first), begin + 1u);
    for (var k0 = begin; k0 < end; k0 += BLOCK) {
        let key = vec4u(k0 + lane * 4u) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = (vec4u(kv_base) + near * p.kv_heads) * WIDTH;
        var s = Tile();                          // q . k
        var ds = Tile();                         // dout . v, then dS
        for (var c = 0u; c < WIDTH; c++) {
            let b = transpose(mat4x4f(k[at.x + c], k[at.y + c], k[at.z + c], k[at.w + c]));
            for (var r = 0u; r < R; r++) { add_rows(&s, r, q[q_at[r] + c], b); }
        }
        for (var c = 0u; c < WIDTH; c++) {
            let b = transpose(mat4x4f(v[at.x + c], v[at.y + c], v[at.z + c], v[at.w + c]));
            for (var r = 0u; r < R; r++) { add_rows(&ds, r, dout[q_at[r] + c], b); }
        }
        let real = keys_real(batch, near);
        let spans = key_spans(batch, near);
        for (var r = 0u; r < R; r++) {
            for (var j = 0u; j < LANES; j++) {
                let query = min(first + r * LANES + j, last);
                let kin = related(spans, query_span(batch, query));
                let term = bias_keys(batch, head, query, near);
                let near_seen = within(key, vec4u(row_start(batch, query)), vec4u(subgroupShuffle(limit[r], j)));
                let seen = real & near_seen & kin & bias_seen(term);
                let score = s[r][j] * p.scale;
                let below = exp_below(biased(capped(score), term) - subgroupShuffle(stat[r].x, j));
                let weight = below * subgroupShuffle(stat[r].y, j);
                let through = drop_keys(ds[r][j], seed, batch, head, query, key.x);
                let gradient = weight * (through - subgroupShuffle(stat[r].z, j));
                ds[r][j] = select(vec4f(), through_cap(gradient, score), seen);
            }
        }
        for (var x = 0u; x < LANES; x++) {       // the keys that lane x holds
            let keys = min(vec4u(k0 + x * 4u) + vec4u(0u, 1u, 2u, 3u), vec4u(p.keys - 1u));
            let rows = (vec4u(kv_base) + keys * p.kv_heads) * WIDTH;
            for (var part = 0u; part < PARTS; part++) {
                let row = rows + min(part * LANES + lane, WIDTH - 1u);
                let b = mat4x4f(k[row.x], k[row.y], k[row.z], k[row.w]);
                for (var r = 0u; r < R; r++) {
                    for (var j = 0u; j < LANES; j++) { acc[part][r][j] += combine(subgroupShuffle(ds[r][j], x), b); }
                }
            }
        }
    }
    for (var r = 0u; r < R; r++) {
        for (var j = 0u; j < LANES; j++) {
            let query = first + r * LANES + j;
            if (query > last) { continue; }
            for (var part = 0u; part < PARTS; part++) {
                let column = part * LANES + lane;
                if (column < WIDTH) { dq[query_row(batch, query, head) * WIDTH + column] = acc[part][r][j] * p.scale; }
            }
        }
    }
}
