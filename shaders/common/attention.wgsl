// attention: the functions that all attention kernels share. Their inputs have the layout (batch, token, head, head_dim).

struct Params {
    base: u32, groups: u32,
    batch: u32, queries: u32, keys: u32, heads: u32, kv_heads: u32,
    scale: f32,
    bias_batch: u32,                     // 1 if every batch row has a bias of its own
    salt: u32, threshold: u32,           // of dropout: what tells layers apart, and below which random words drop
    keep_scale: f32,                     // of dropout: 1 / (1 - rate), the factor of probabilities that stay
}

@group(0) @binding(0) var<uniform> p: Params;

// Scores are scale * (q . k), summed in one order and scaled last, so that forward and backward kernels round them alike.

// Below every score, and not so far that a difference to one overflows: stands for minus infinity, which shaders may not use.
const FAR = -2e38;

// The row of q, out and their gradients.
fn query_row(batch: u32, query: u32, head: u32) -> u32 { return (batch * p.queries + query) * p.heads + head; }

// The row of the statistics of a row of scores.
fn stat_row(batch: u32, query: u32, head: u32) -> u32 { return (batch * p.heads + head) * p.queries + query; }

// The key and value head that a query head reads.
fn shared_head(head: u32) -> u32 { return head / (p.heads / p.kv_heads); }

// exp for arguments that are not positive: far below, the driver is not trusted. Above are only pairs that are not seen.
fn exp_below(x: vec4f) -> vec4f { return exp(clamp(x, vec4f(-80.0), vec4f(0.0))); }

// 1 / the sum of exp(s - max), 0 for a row that sees no key: its sum is 0, and any other at least exp(0).
fn share_of(sum: f32) -> f32 { return select(0.0, 1.0 / max(sum, 0.5), sum > 0.0); }

// Whether each of four keys is in the range that a query sees; or a key in the ranges of four queries.
fn within(key: vec4u, start: vec4u, limit: vec4u) -> vec4<bool> { return (key >= start) & (key < limit); }

fn row_starts(batch: u32, query: vec4u) -> vec4u {
    return vec4u(row_start(batch, query.x), row_start(batch, query.y), row_start(batch, query.z), row_start(batch, query.w));
}

fn largest(x: vec4f) -> f32 { return max(max(x.x, x.y), max(x.z, x.w)); }

// The i-th of n blocks in an order in which long and short rows of a causal mask alternate.
fn alternate(i: u32, n: u32) -> u32 { return select(i / 2u, n - 1u - i / 2u, i % 2u == 1u); }
