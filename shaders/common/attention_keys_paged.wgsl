// attention_keys_paged: the rows of keys and values, which lie in pages that all batch rows share.
//
// needs  constants PAGES (the binding), PAGE (keys of a page, a multiple of 4)

@group(0) @binding(PAGES) var<storage, read> pages: array<u32>;        // (B, Tk / PAGE): the page of each PAGE keys of a batch row

// Where the pages of a batch row begin, and its key head.
struct KvBase { pages: u32, head: u32 }
fn kv_base(batch: u32, kv_head: u32) -> KvBase { return KvBase(batch * (p.keys / PAGE), kv_head); }

// The row of k and v of a key.
fn kv_row(base: KvBase, key: u32) -> u32 {
    return (pages[base.pages + key / PAGE] * PAGE + key % PAGE) * p.kv_heads + base.head;
}

fn kv_row_of(batch: u32, kv_head: u32, key: u32) -> u32 { return kv_row(kv_base(batch, kv_head), key); }

// The same for four keys.
fn kv_rows(base: KvBase, key: vec4u) -> vec4u {
    return vec4u(kv_row(base, key.x), kv_row(base, key.y), kv_row(base, key.z), kv_row(base, key.w));
}
