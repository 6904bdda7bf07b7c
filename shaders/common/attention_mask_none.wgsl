// attention_mask_none: every query sees every key.

fn row_limit(batch: u32, query: u32) -> u32 { return p.keys; }
fn tile_limit(batch: u32, query: u32) -> u32 { return p.keys; }
// The first key that a query sees, and that one of the 32 queries beside it sees.
fn row_start(batch: u32, query: u32) -> u32 { return 0u; }
fn tile_start(batch: u32, query: u32) -> u32 { return 0u; }
fn keys_real(batch: u32, key: vec4u) -> vec4<bool> { return vec4<bool>(true); }
