// matmul_pre_none: what goes into the activation is not stored.

fn keep_pre(i: u32, x: Element) {}
