// matmul_finish: from a product of rows and columns to the result.
//
//   pre = α product (+ what is there already) + bias[column];   out = act(pre) + residual
//
// constants  ACCUMULATE: the product is one of several that sum up in `out`
// needs      add_bias, keep_pre, activated, add_residual: each from the snippet that does it or from the one that does nothing;
//            indices count elements of type Element

fn finish(i: u32, column: u32, product: Element) {
    var x = product * p.alpha;
    if (ACCUMULATE) { x += out[i]; }
    x = add_bias(column, x);
    keep_pre(i, x);
    out[i] = add_residual(i, activated(x));
}
