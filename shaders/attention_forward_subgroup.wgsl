// attention_forward_subgroup: attention of few queries over many keys, a subgroup for a query head.
//
//   m = max of s;   out = sum of exp(s - m) * v / sum of exp(s - m);   lse = m + log of the latter      s = scale * q . k + bias,
//   where seen
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D) f32   [visible]   [bias]
// out       out (B, Tq, H, D) f32   lse (B, H, Tq) f32: 1e30 for a row that sees no key, whose out is 0
// grid      one workgroup for a query head
// layout    a lane takes every LANES-th block of 4 keys
// needs     constants WIDTH (vectors of a row), LANES: a workgroup is one subgroup; snippets attention, a mask, spans, a bias, vector4
// numerics  f32 throughout; masked scores are selected away, no infinities; sums over lanes in the driver's order, the same on every run
// paper     Dao et al., Flash-Decoding, 2023, the splits put together without a second launch

@group(0) @binding(1) var<storage, read> q: array<Vector>;                 // (B, Tq, H, D)
@group(0) @binding(2) var<storage, read> k: array<Vector>;                 // (B, Tk, Hkv, D)
@group(0) @binding(3) var<storage, read> v: array<Vector>;                 // (B, Tk, Hkv, D)
@group(0) @binding(4) var<storage, read_write> out: array<Vector>;         // (B, Tq, H, D)
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;            // (B, H, Tq)

@compute @workgroup_size(LANES)
fn attention_forward_subgroup(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                              @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let head = group % p.heads;
    let query = group / p.heads % p.queries;
    let batch = group / (p.heads * p.queries);
    let limit = row_limit(batch, query);
    let kv_base = batch * p.keys * p.kv_heads + shared_head(head);
    let row = query_row(batch, query, head);
    let span = query_span(batch, query);

    var mine: array<Vector, WIDTH>;
    var acc: array<Vector, WIDTH>;
    var top = FAR;
    var sum = 0.0;
    for (var c = 0u; c < WIDTH; c++) { mine[c] = q[row * WIDTH + c] * p.scale; }
    for (var k0 = lane * 4u; k0 < limit; k0 += LANES * 4u) {
        let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = (vec4u(kv_base) + near * p.kv_heads) * WIDTH;
        var s: vec4f;
        for (var c = 0u; c < WIDTH; c++) {
            let a = mine[c];
            s += vec4f(inner(a, k[at.x + c]), inner(a, k[at.y + c]), inner(a, k[at.z + c]), inner(a, k[at.w + c]));
        }
        s += bias_keys(batch, head, query, near);
        let seen = keys_real(batch, near) & (key < vec4u(limit)) & related(key_spans(batch, near), span);
        let m = max(top, largest(select(vec4f(FAR), s, seen)));
        let shrink = exp(max(top - m, -80.0));
        let e = select(vec4f(), exp_below(s - m), seen);
        top = m;
        sum = sum * shrink + dot(e, vec4f(1.0));
        for (var c = 0u; c < WIDTH; c++) {
            acc[c] = acc[c] * shrink + e.x * v[at.x + c] + e.y * v[at.y + c] + e.z * v[at.z + c] + e.w * v[at.w + c];
        }
    }
    let m = subgroupMax(top);
    let share = select(0.0, exp(max(top - m, -80.0)), sum > 0.0);
    let total = subgroupAdd(sum * share);
    let scale = share * select(0.0, 1.0 / total, total > 0.0);
    for (var c = 0u; c < WIDTH; c++) {
        let x = subgroupAdd(acc[c] * scale);
        if (c % LANES == lane) { out[row * WIDTH + c] = x; }
    }
    if (lane == 0u) { lse[stat_row(batch, query, head)] = select(-FAR, m + log(max(total, 1e-30)), total > 0.0); }
}
