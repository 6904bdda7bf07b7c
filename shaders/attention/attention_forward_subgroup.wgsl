// attention_forward_subgroup: attention of few queries over many keys, a subgroup for a query head.
//
//   s = cap(scale * q . k) + bias, where seen;   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m)
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D), see attention_kv_*   [key_limits]   [bias]   [pages]
// out       out (B, Tq, H, D) f32   tops (B, H, Tq, 2) f32: m and 1 / sum of exp(s - m), or 0 for a row that sees no key,
//           whose out is 0
// grid      one workgroup for a query head
// layout    a lane takes every LANES-th block of 4 keys
// needs     constants WIDTH (vectors of a row), LANES: a workgroup is one subgroup; snippets attention_few and its own, vector4
// numerics  f32 throughout; masked scores are selected away, no infinities; sums over lanes in the driver's order, the same on every run
// paper     Dao et al., Flash-Decoding, 2023, the splits put together without a second launch

@group(0) @binding(4) var<storage, read_write> out: array<Vector>;         // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> tops: array<vec2f>;         // (B, H, Tq)

@compute @workgroup_size(LANES)
fn attention_forward_subgroup(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                              @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let head = group % p.heads;
    let query = group / p.heads % p.queries;
    let batch = group / (p.heads * p.queries);
    let row = query_row(batch, query, head);
    let start = row_start(batch, query);
    let first = start / 4u * 4u + lane * 4u;
    var sums = over_keys(batch, head, query, first, start, row_limit(batch, query), LANES * 4u);
    let m = subgroupMax(sums.top);
    let share = select(0.0, exp(max(sums.top - m, -80.0)), sums.sum > 0.0);
    let total = subgroupAdd(sums.sum * share);
    let scale = share * share_of(total);
    for (var c = 0u; c < WIDTH; c++) {
        let x = subgroupAdd(sums.acc[c] * scale);
        if (c % LANES == lane) { out[row * WIDTH + c] = x; }
    }
    if (lane == 0u) { tops[stat_row(batch, query, head)] = vec2f(m, share_of(total)); }
}
