// attention_spans_none: visibility does not depend on spans.

alias Span = u32;
alias Spans = u32;

fn query_span(batch: u32, query: u32) -> Span { return 0u; }
fn key_span(batch: u32, key: u32) -> Span { return 0u; }
fn query_spans(batch: u32, query: vec4u) -> Spans { return 0u; }
fn key_spans(batch: u32, key: vec4u) -> Spans { return 0u; }
fn related(four: Spans, one: Span) -> vec4<bool> { return vec4<bool>(true); }
