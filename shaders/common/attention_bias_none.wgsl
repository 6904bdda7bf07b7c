// attention_bias_none: nothing is added to the scores.

fn bias_keys(batch: u32, head: u32, query: u32, key: vec4u) -> vec4f { return vec4f(); }
fn bias_queries(batch: u32, head: u32, query: vec4u, key: u32) -> vec4f { return vec4f(); }
fn bias_seen(term: vec4f) -> vec4<bool> { return vec4<bool>(true); }
fn biased(score: vec4f, term: vec4f) -> vec4f { return score; }
