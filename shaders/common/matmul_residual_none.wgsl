// matmul_residual_none: no residual.

fn add_residual(i: u32, x: Element) -> Element { return x; }
