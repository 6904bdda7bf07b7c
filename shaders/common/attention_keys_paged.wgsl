// attention_keys_paged: the rows of keys and values, which lie in pages that all batch rows share.
//
// needs  constants PAGES (the binding), PAGE (keys of a page, a multiple of 4)

@group(0) @binding(PAGES) var<storage, read> pages: array<u32>;        // (B, Tk / PAGE): the page of each PAGE keys of a batch row

// The row of k and v of a key and of a key head.
fn kv_row(batch: u32, kv_head: u32, key: u32) -> u32 {
    return (pages[(batch * p.keys + key) / PAGE] * PAGE + key % PAGE) * p.kv_heads + kv_head;
}

// The same for four keys.
fn kv_rows(batch: u32, kv_head: u32, key: vec4u) -> vec4u {
    return vec4u(kv_row(batch, kv_head, key.x), kv_row(batch, kv_head, key.y), kv_row(batch, kv_head, key.z), kv_row(batch, kv_head, key.w));
}
