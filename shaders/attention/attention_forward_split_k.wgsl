// attention_forward_split_k: attention of few queries over many keys, a workgroup for 64 keys and GROUP query heads.
//
//   m = max of s;   l = sum of exp(s - m);   partial = sum of exp(s - m) * v      s = cap(scale * q . k) + bias, where seen
//
// in        q (B, Tq, H, D) f32   k, v (B, Tk, Hkv, D), see attention_kv_*   [key_limits]   [bias]   [pages]
// out       partial (B, Tq, H, splits, D) f32   found (B, Tq, H, splits, 2) f32: m, l; splits of which no key is seen are not written
// grid      one workgroup for a split, of ceil(Tk / 64), of a query and GROUP heads that share a key head
// needs     constants WIDTH (vectors of a row), GROUP; snippets attention, keys, kv, a mask, spans, a bias, a cap, a vector;
//           at most 15 KiB of workgroup memory (GROUP at most 8, for D above 128 at most 4)
// numerics  f32 throughout; masked scores are selected away, no infinities
// paper     Dao et al., Flash-Decoding, 2023; attention_merge puts the splits together

@group(0) @binding(1) var<storage, read> q: array<Vector>;                 // (B, Tq, H, D)
@group(0) @binding(4) var<storage, read_write> partials: array<Vector>;     // (B, Tq, H, splits, D)
@group(0) @binding(5) var<storage, read_write> found: array<vec2f>;        // (B, Tq, H, splits)

const ACROSS = min(WIDTH, 64u);                  // invocations side by side on a row of v
const SLICES = 64u / ACROSS;                     // rows of v at a time
const COLUMNS = (WIDTH + 63u) / 64u;             // vectors of a row that an invocation owns
var<workgroup> asked: array<Vector, GROUP * WIDTH>;
var<workgroup> weight: array<f32, GROUP * 64u>;  // scores, then probabilities, of each head
var<workgroup> high: array<f32, GROUP * 8u>;     // of 8 keys each
var<workgroup> total: array<f32, GROUP * 8u>;
var<workgroup> sums: array<Vector, GROUP * SLICES * WIDTH>;

fn highest(g: u32) -> f32 {
    var most = high[g * 8u];
    for (var i = 1u; i < 8u; i++) { most = max(most, high[g * 8u + i]); }
    return most;
}

@compute @workgroup_size(64)
fn attention_forward_split_k(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u,
                           @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let splits = (p.keys + 63u) / 64u;
    let packs = p.heads / GROUP;
    let split = group % splits;
    let head = group / splits % packs * GROUP;
    let query = group / (splits * packs) % p.queries;
    let batch = group / (splits * packs * p.queries);
    let first = split * 64u;
    let limit = row_limit(batch, query);
    let start = row_start(batch, query);
    if (first >= limit || first + 64u <= start) { return; }
    let base = kv_base(batch, shared_head(head));
    let row = query_row(batch, query, head);

    for (var i = lane; i < GROUP * WIDTH; i += 64u) { asked[i] = q[row * WIDTH + i]; }
    workgroupBarrier();
    let key = min(first + lane, p.keys - 1u);
    let kin = related(key_spans(batch, vec4u(key)), query_span(batch, query));
    let near_seen = within(vec4u(first + lane), vec4u(start), vec4u(limit)).x && keys_real(batch, vec4u(key)).x && kin.x;
    var s: array<f32, GROUP>;
    var seen: array<bool, GROUP>;
    let at = kv_row(base, key) * WIDTH;
    for (var c = 0u; c < WIDTH; c++) {
        let b = key_vector(at + c);
        for (var g = 0u; g < GROUP; g++) { s[g] += vector_dot(asked[g * WIDTH + c], b); }
    }
    for (var g = 0u; g < GROUP; g++) {
        let term = bias_keys(batch, head + g, query, vec4u(key));
        seen[g] = near_seen && bias_seen(term).x;
        s[g] = biased(capped(vec4f(s[g] * p.scale)), term).x;
        weight[g * 64u + lane] = select(FAR, s[g], seen[g]);
    }
    workgroupBarrier();
    if (lane < GROUP * 8u) {
        var most = weight[lane * 8u];
        for (var i = 1u; i < 8u; i++) { most = max(most, weight[lane * 8u + i]); }
        high[lane] = most;
    }
    workgroupBarrier();
    for (var g = 0u; g < GROUP; g++) {
        weight[g * 64u + lane] = select(0.0, exp_below(vec4f(s[g] - highest(g))).x, seen[g]);
    }
    workgroupBarrier();
    let column = lane % ACROSS;
    let slice = lane / ACROSS;
    if (slice < SLICES) {
        var acc: array<array<Vector, COLUMNS>, GROUP>;
        for (var i = max(start, first) - first + slice; i < min(64u, limit - first); i += SLICES) {
            let at = kv_row(base, first + i) * WIDTH;
            for (var c = 0u; c < COLUMNS; c++) {
                let b = value_vector(at + min(column + c * 64u, WIDTH - 1u));
                for (var g = 0u; g < GROUP; g++) { acc[g][c] += weight[g * 64u + i] * b; }
            }
        }
        for (var c = 0u; c < COLUMNS; c++) {
            if (column + c * 64u < WIDTH) {
                for (var g = 0u; g < GROUP; g++) { sums[(g * SLICES + slice) * WIDTH + column + c * 64u] = acc[g][c]; }
            }
        }
    }
    if (lane < GROUP * 8u) {
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) { sum += weight[lane * 8u + i]; }
        total[lane] = sum;
    }
    workgroupBarrier();
    for (var i = lane; i < GROUP * WIDTH; i += 64u) {
        let g = i / WIDTH;
        var sum = sums[g * SLICES * WIDTH + i % WIDTH];
        for (var j = 1u; j < SLICES; j++) { sum += sums[(g * SLICES + j) * WIDTH + i % WIDTH]; }
        partials[((row + g) * splits + split) * WIDTH + i % WIDTH] = sum;
    }
    if (lane < GROUP) {
        var sum = 0.0;
        for (var i = 0u; i < 8u; i++) { sum += total[lane * 8u + i]; }
        found[(row + lane) * splits + split] = vec2f(highest(lane), sum);
    }
}
