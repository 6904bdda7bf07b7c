// matmul_out_scalar: the result, one element a store, for rows of any length.
//
// constants  OUT_BINDING: the binding of the result
// needs      finish (matmul_finish)

// Elements of the result of an Element.
const OUT_WIDTH = 1u;

alias Element = f32;

@group(0) @binding(OUT_BINDING) var<storage, read_write> out: array<f32>;

fn widen(x: f32) -> vec4f { return vec4f(x); }

fn narrow(x: vec4f) -> f32 { return x.x; }

// Stores the products of row `row`, columns `column` to `column` + 3, as far as they lie in the matrix.
fn store(at: Tile, row: u32, column: u32, product: vec4f) {
    if (row >= at.end) { return; }
    let i = at.batch * p.c_batch + p.c_offset + row * p.c_stride + column;
    let c = p.c_column + column;
    if (column < p.n) { finish(i, c, product.x); }
    if (column + 1u < p.n) { finish(i + 1u, c + 1u, product.y); }
    if (column + 2u < p.n) { finish(i + 2u, c + 2u, product.z); }
    if (column + 3u < p.n) { finish(i + 3u, c + 3u, product.w); }
}
