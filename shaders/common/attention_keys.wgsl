// attention_keys: the rows of keys and values, which lie side by side for each batch row.

// The row of k and v of a key (or of each of four) and of a key head.
fn kv_row(batch: u32, kv_head: u32, key: u32) -> u32 { return (batch * p.keys + key) * p.kv_heads + kv_head; }
fn kv_rows(batch: u32, kv_head: u32, key: vec4u) -> vec4u { return (batch * p.keys + key) * p.kv_heads + kv_head; }
