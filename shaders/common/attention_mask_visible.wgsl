// attention_mask_visible: limits and mask from the tensor that the kernel attention_visible writes.

@group(0) @binding(VISIBLE) var<storage, read> visible: array<u32>;   // (batch, tiles + queries [+ keys] [+ 2] [+ spans])

fn visible_row(batch: u32) -> u32 {
    return batch * ((p.queries + 31u) / 32u + p.queries + select(0u, p.keys, MASKED)
                    + select(0u, 2u, SEEDED) + select(0u, 3u * (p.queries + p.keys), STRUCTURED));
}

// Where the seed of dropout stands.
fn seed_begin(batch: u32) -> u32 {
    return visible_row(batch) + (p.queries + 31u) / 32u + p.queries + select(0u, p.keys, MASKED);
}

// How many keys a query sees.
fn row_limit(batch: u32, query: u32) -> u32 {
    return visible[visible_row(batch) + (p.queries + 31u) / 32u + query];
}

// The most that one of the 32 queries beside it sees (tiles begin at multiples of 32).
fn tile_limit(batch: u32, query: u32) -> u32 { return visible[visible_row(batch) + query / 32u]; }

// Which of four keys, all of them in range, are not padding.
fn keys_real(batch: u32, key: vec4u) -> vec4<bool> {
    if (!MASKED) { return vec4<bool>(true); }
    let at = vec4u(visible_row(batch) + (p.queries + 31u) / 32u + p.queries) + key;
    return vec4u(visible[at.x], visible[at.y], visible[at.z], visible[at.w]) != vec4u(0u);
}
