// matmul_activation: the activation function of the constant ACTIVATION (see activation.wgsl).

fn activated(x: Element) -> Element { return narrow(activate4(ACTIVATION, widen(x))); }
