// attention_mask_limits: limits and mask from the tensor that the kernel attention_key_limits writes.

// (batch, tiles + queries [+ tiles + queries] [+ keys] [+ 2] [+ spans])
@group(0) @binding(KEY_LIMITS) var<storage, read> key_limits: array<u32>;

// Words of a tile and of each query, once for limits and once for starts.
fn row_words() -> u32 { return (p.queries + 31u) / 32u + p.queries; }

// Where the mask stands in a row.
fn mask_begin() -> u32 { return row_words() * select(1u, 2u, WINDOWED); }

fn limits_row(batch: u32) -> u32 {
    return batch * (mask_begin() + select(0u, p.keys, MASKED)
                    + select(0u, 2u, SEEDED) + select(0u, 3u * (p.queries + p.keys), TREE));
}

// Where the seed of dropout stands.
fn seed_begin(batch: u32) -> u32 {
    return limits_row(batch) + mask_begin() + select(0u, p.keys, MASKED);
}

// Behind the last key that a query sees.
fn row_limit(batch: u32, query: u32) -> u32 {
    return key_limits[limits_row(batch) + (p.queries + 31u) / 32u + query];
}

// The most that one of the 32 queries beside it sees (tiles begin at multiples of 32).
fn tile_limit(batch: u32, query: u32) -> u32 { return key_limits[limits_row(batch) + query / 32u]; }

// The first key that a query sees, and that one of the 32 queries beside it sees.
fn row_start(batch: u32, query: u32) -> u32 {
    if (!WINDOWED) { return 0u; }
    return key_limits[limits_row(batch) + row_words() + (p.queries + 31u) / 32u + query];
}

fn tile_start(batch: u32, query: u32) -> u32 {
    if (!WINDOWED) { return 0u; }
    return key_limits[limits_row(batch) + row_words() + query / 32u];
}

// Which of four keys, all of them in range, are not padding.
fn keys_real(batch: u32, key: vec4u) -> vec4<bool> {
    if (!MASKED) { return vec4<bool>(true); }
    let at = vec4u(limits_row(batch) + mask_begin()) + key;
    return vec4u(key_limits[at.x], key_limits[at.y], key_limits[at.z], key_limits[at.w]) != vec4u(0u);
}
