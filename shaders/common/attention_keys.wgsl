// attention_keys: the rows of keys and values, which lie side by side for each batch row.

// Where the rows of a batch row and a key head are.
struct KvBase { row: u32 }
fn kv_base(batch: u32, kv_head: u32) -> KvBase { return KvBase(batch * p.keys * p.kv_heads + kv_head); }

// The row of k and v of a key, in one step: compilers make more of it where it stands alone.
fn kv_row_of(batch: u32, kv_head: u32, key: u32) -> u32 { return (batch * p.keys + key) * p.kv_heads + kv_head; }

// The row of k and v of a key, and of each of four.
fn kv_row(base: KvBase, key: u32) -> u32 { return base.row + key * p.kv_heads; }
fn kv_rows(base: KvBase, key: vec4u) -> vec4u { return base.row + key * p.kv_heads; }
