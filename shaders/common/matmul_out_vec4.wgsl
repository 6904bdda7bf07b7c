// matmul_out_vec4: the result, four elements a store.
//
// constants  OUT_BINDING: the binding of the result
// needs      finish (matmul_finish); rows, offset and distance of matrices that are multiples of 4 elements

// Elements of the result of an Element.
const OUT_WIDTH = 4u;

alias Element = vec4f;

@group(0) @binding(OUT_BINDING) var<storage, read_write> out: array<vec4f>;

fn widen(x: vec4f) -> vec4f { return x; }

fn narrow(x: vec4f) -> vec4f { return x; }

// Stores the products of row `row`, columns `column` to `column` + 3, as far as they lie in the matrix.
fn store(at: Tile, row: u32, column: u32, product: vec4f) {
    if (row < at.end && column < p.n) {
        let i = at.batch * p.c_batch + p.c_offset + row * p.c_stride + column;
        finish(i / 4u, (p.c_column + column) / 4u, product);
    }
}
