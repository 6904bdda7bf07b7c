// attention_mask_none: every query sees every key.

fn row_limit(batch: u32, query: u32) -> u32 { return p.keys; }
fn tile_limit(batch: u32, query: u32) -> u32 { return p.keys; }
fn keys_real(batch: u32, key: vec4u) -> vec4<bool> { return vec4<bool>(true); }
