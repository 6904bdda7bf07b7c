// matmul_activation_none: no activation function.

fn activated(x: Element) -> Element { return x; }
