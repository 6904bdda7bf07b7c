// matmul_pre: the input of the activation is stored as well, for the backward pass.

@group(0) @binding(PRE_BINDING) var<storage, read_write> pre: array<Element>;

fn keep_pre(i: u32, x: Element) { pre[i] = x; }
