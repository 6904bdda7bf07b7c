// attention_few: a row of attention over some of the keys, by one invocation: shared by the kernels for few queries.
//
//   top = max of s;   sum = sum of exp(s - top);   acc = sum of exp(s - top) * v      s = cap(scale * q . k) + bias, where seen
//
// needs     constant WIDTH (vectors of a row); snippets attention, keys, kv, a mask, spans, a bias, a cap, a vector

@group(0) @binding(1) var<storage, read> q: array<Vector>;                 // (B, Tq, H, D)

struct Sums { top: f32, sum: f32, acc: array<Vector, WIDTH> }

// The sums over blocks of 4 keys that begin at first, first + step, and so on below limit, of those not in front of start.
fn over_keys(batch: u32, head: u32, query: u32, first: u32, start: u32, limit: u32, step: u32) -> Sums {
    let base = kv_base(batch, shared_head(head));
    let row = query_row(batch, query, head);
    let span = query_span(batch, query);
    var mine: array<Vector, WIDTH>;
    var acc: array<Vector, WIDTH>;
    var top = FAR;
    var sum = 0.0;
    for (var c = 0u; c < WIDTH; c++) { mine[c] = q[row * WIDTH + c]; }
    for (var k0 = first; k0 < limit; k0 += step) {
        let key = vec4u(k0) + vec4u(0u, 1u, 2u, 3u);
        let near = min(key, vec4u(p.keys - 1u));
        let at = kv_rows(base, near) * WIDTH;
        var s = vec4f();
        for (var c = 0u; c < WIDTH; c++) {
            let a = mine[c];
            let b0 = key_vector(at.x + c); let b1 = key_vector(at.y + c); let b2 = key_vector(at.z + c); let b3 = key_vector(at.w + c);
            s += vec4f(vector_dot(a, b0), vector_dot(a, b1), vector_dot(a, b2), vector_dot(a, b3));
        }
        let term = bias_keys(batch, head, query, near);
        s = biased(capped(s * p.scale), term);
        let near_seen = keys_real(batch, near) & related(key_spans(batch, near), span) & bias_seen(term);
        let seen = within(key, vec4u(start), vec4u(limit)) & near_seen;
        let m = max(top, largest(select(vec4f(FAR), s, seen)));
        let shrink = exp(max(top - m, -80.0));
        let e = select(vec4f(), exp_below(s - m), seen);
        top = m;
        sum = sum * shrink + dot(e, vec4f(1.0));
        for (var c = 0u; c < WIDTH; c++) {
            let b0 = value_vector(at.x + c); let b1 = value_vector(at.y + c); let b2 = value_vector(at.z + c); let b3 = value_vector(at.w + c);
            acc[c] = acc[c] * shrink + e.x * b0 + e.y * b1 + e.z * b2 + e.w * b3;
        }
    }
    return Sums(top, sum, acc);
}
