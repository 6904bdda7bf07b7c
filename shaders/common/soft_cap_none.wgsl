// soft_cap_none: scores, or logits, may be of any size.

fn capped(score: vec4f) -> vec4f { return score; }
fn through_cap(gradient: vec4f, score: vec4f) -> vec4f { return gradient; }
