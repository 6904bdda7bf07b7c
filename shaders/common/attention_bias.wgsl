// attention_bias: a term added to every score. Where it is minus infinity, the key is not seen.

@group(0) @binding(BIAS) var<storage, read> bias: array<f32>;   // (heads, queries, keys), one such for each batch row,
                                                                // or (heads, queries + keys - 1): by how far the key is behind

// Whether each of four terms is above minus infinity, by its bits: a driver may assume in comparisons that it does not occur.
fn bias_seen(term: vec4f) -> vec4<bool> { return bitcast<vec4u>(term) != vec4u(0xff800000u); }

// Scores with their terms, of which masks have the least finite number: sums and differences stay finite.
fn biased(score: vec4f, term: vec4f) -> vec4f { return score + max(term, vec4f(-1e38)); }

// Where the term of a query and key 0 stands, or would stand: keys follow. By distance, the next query's row begins one earlier.
fn bias_row(batch: u32, head: u32, query: u32) -> u32 {
    if (BIAS_BY_DISTANCE) { return head * (p.queries + p.keys - 1u) + p.queries - 1u - query; }
    return ((batch * p.bias_batch * p.heads + head) * p.queries + query) * p.keys;
}

// The terms of one query and four keys, all in range.
fn bias_keys(batch: u32, head: u32, query: u32, key: vec4u) -> vec4f {
    let at = vec4u(bias_row(batch, head, query)) + key;
    return vec4f(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}

// The terms of four queries and one key, all in range.
fn bias_queries(batch: u32, head: u32, query: vec4u, key: u32) -> vec4f {
    let first = vec4u(bias_row(batch, head, 0u) + key);
    let at = select(first + query * p.keys, first - query, BIAS_BY_DISTANCE);
    return vec4f(bias[at.x], bias[at.y], bias[at.z], bias[at.w]);
}
