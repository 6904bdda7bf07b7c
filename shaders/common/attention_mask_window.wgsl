// attention_mask_window: query i stands at i + keys - queries and sees the keys from BEFORE in front of it to AFTER behind it.
//
// BEFORE and AFTER are less than the larger of keys and queries: a window that hides nothing has another mask.

// The first key that a query sees.
fn row_start(batch: u32, query: u32) -> u32 {
    return max(query + p.keys, p.queries + BEFORE) - (p.queries + BEFORE);
}

// Behind the last key that a query sees.
fn row_limit(batch: u32, query: u32) -> u32 {
    return min(max(query + p.keys + AFTER + 1u, p.queries) - p.queries, p.keys);
}

// The same of the 32 queries beside it (tiles begin at multiples of 32).
fn tile_start(batch: u32, query: u32) -> u32 { return row_start(batch, query / 32u * 32u); }
fn tile_limit(batch: u32, query: u32) -> u32 { return row_limit(batch, min(query | 31u, p.queries - 1u)); }

fn keys_real(batch: u32, key: vec4u) -> vec4<bool> { return vec4<bool>(true); }
