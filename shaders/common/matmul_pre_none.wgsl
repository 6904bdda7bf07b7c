// matmul_pre_none: the input of the activation is not stored.

fn keep_pre(i: u32, x: Element) {}
