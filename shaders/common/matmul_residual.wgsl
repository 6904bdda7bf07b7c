// matmul_residual: a tensor like the result is added to it.

@group(0) @binding(RESIDUAL_BINDING) var<storage, read> residual: array<Element>;

fn add_residual(i: u32, x: Element) -> Element { return x + residual[i]; }
