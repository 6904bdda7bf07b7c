// matmul_bias: a bias of n elements is added to every row.

@group(0) @binding(BIAS_BINDING) var<storage, read> bias: array<Element>;

fn add_bias(column: u32, x: Element) -> Element { return x + bias[column]; }
