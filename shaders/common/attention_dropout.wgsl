// attention_dropout: probabilities are dropped at random, and the others divided by the share that remains.
//
// The random word of a pair depends on the seed, the salt, the head, the query and the key alone, so that the forward kernel and
// both backward ones drop the same pairs, and none is stored. The seed stands in the tensor that attention_key_limits writes.

alias Seed = vec2u;

// The seed, which kernels load once: in a loop that is written out, hundreds of loads take some drivers minutes to compile.
fn drop_seed(batch: u32) -> Seed {
    let at = seed_begin(batch);
    return vec2u(key_limits[at], key_limits[at + 1u]);
}

// The words of the keys 2 pair and 2 pair + 1.
fn drop_words(seed: Seed, batch: u32, head: u32, query: u32, pair: u32) -> vec2u {
    let counter = vec2u(query * ((p.keys + 1u) / 2u) + pair, p.salt + batch * p.heads + head);
    return threefry(seed, counter);
}

// x of one query and four keys from an even one on; the words of keys past the end are not used.
fn drop_keys(x: vec4f, seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> vec4f {
    let words = vec4u(drop_words(seed, batch, head, query, key / 2u), drop_words(seed, batch, head, query, key / 2u + 1u));
    return select(vec4f(), x * p.keep_scale, words >= vec4u(p.threshold));
}

fn drop_word(seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> u32 {
    let words = drop_words(seed, batch, head, query, key / 2u);
    return select(words.x, words.y, key % 2u == 1u);
}

// What the value of one query and one key is multiplied by.
fn drop_factor(seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> f32 {
    return select(0.0, p.keep_scale, drop_word(seed, batch, head, query, key) >= p.threshold);
}

// x of four queries from one on and one key.
fn drop_queries(x: vec4f, seed: Seed, batch: u32, head: u32, query: u32, key: u32) -> vec4f {
    let words = vec4u(drop_word(seed, batch, head, query, key), drop_word(seed, batch, head, query + 1u, key),
                      drop_word(seed, batch, head, query + 2u, key), drop_word(seed, batch, head, query + 3u, key));
    return select(vec4f(), x * p.keep_scale, words >= vec4u(p.threshold));
}
