// attention_mask_causal: query i sees the keys up to i + keys - queries.

// The number of keys that a query sees.
fn row_limit(batch: u32, query: u32) -> u32 {
    return max(query + p.keys + 1u, p.queries) - p.queries;
}

// The largest such number in its tile of 32 queries (tiles begin at multiples of 32).
fn tile_limit(batch: u32, query: u32) -> u32 { return row_limit(batch, min(query | 31u, p.queries - 1u)); }

// The first key that a query sees, and that one of the 32 queries beside it sees.
fn row_start(batch: u32, query: u32) -> u32 { return 0u; }
fn tile_start(batch: u32, query: u32) -> u32 { return 0u; }

fn keys_real(batch: u32, key: vec4u) -> vec4<bool> { return vec4<bool>(true); }
