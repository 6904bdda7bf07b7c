// attention_dropout_none: no probability is dropped.

alias Seed = u32;
fn drop_seed(batch: u32) -> Seed { return 0u; }
fn drop_keys(x: vec4f, seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> vec4f { return x; }
fn drop_queries(x: vec4f, seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> vec4f { return x; }
fn drop_factor(seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> f32 { return 1.0; }
