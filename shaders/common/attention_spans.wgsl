// attention_spans: two tokens see each other where the span of one of them covers the other.
//
// Spans stand at the end of a row of the tensor that the kernel attention_key_limits writes: those of the queries, then those of
// the keys, three words a token.

alias Span = vec3u;                              // a token's position, and the first and last position of its span
alias Spans = array<vec4u, 3>;                   // the same of four tokens

fn span_at(word: u32) -> Span { return vec3u(key_limits[word], key_limits[word + 1u], key_limits[word + 2u]); }

fn spans_at(word: vec4u) -> Spans {
    let a = span_at(word.x); let b = span_at(word.y); let c = span_at(word.z); let d = span_at(word.w);
    return Spans(vec4u(a.x, b.x, c.x, d.x), vec4u(a.y, b.y, c.y, d.y), vec4u(a.z, b.z, c.z, d.z));
}

fn query_spans_begin(batch: u32) -> u32 { return limits_row(batch + 1u) - 3u * (p.queries + p.keys); }
fn key_spans_begin(batch: u32) -> u32 { return limits_row(batch + 1u) - 3u * p.keys; }

// Of tokens in range.
fn query_span(batch: u32, query: u32) -> Span { return span_at(query_spans_begin(batch) + 3u * query); }
fn key_span(batch: u32, key: u32) -> Span { return span_at(key_spans_begin(batch) + 3u * key); }
fn query_spans(batch: u32, query: vec4u) -> Spans { return spans_at(vec4u(query_spans_begin(batch)) + 3u * query); }
fn key_spans(batch: u32, key: vec4u) -> Spans { return spans_at(vec4u(key_spans_begin(batch)) + 3u * key); }

// Whether the span of each of four tokens covers another token, or is covered by its span.
fn related(four: Spans, one: Span) -> vec4<bool> {
    let above = (four[1] <= vec4u(one.x)) & (vec4u(one.x) <= four[2]);
    let below = (vec4u(one.y) <= four[0]) & (four[0] <= vec4u(one.z));
    return above | below;
}
