// matmul_problem: what every matmul kernel is told, and 4×4 blocks of its operands.
//
//   C = α op(A) op(B), op(A) (m, k), op(B) (k, n), C (m, n), for each of a batch of matrices
//
// constants  A_TRANSPOSED: A lies as (k, m); B_TRANSPOSED: B lies as (n, k)
// needs      load_a, load_b (matmul_a_*, matmul_b_*) and store (matmul_out_*)
// edges      whatever lies outside a matrix loads as zero and is not stored, so kernels need no guards of their own

struct Params {
    base: u32, groups: u32,
    m: u32, n: u32, k: u32, batch: u32,
    // Elements from one row of the stored matrix to the next, in front of the first, and from one matrix of the batch to the next.
    a_stride: u32, a_offset: u32, a_batch: u32,
    b_stride: u32, b_offset: u32, b_batch: u32,
    c_stride: u32, c_offset: u32, c_batch: u32,
    // The column of C that column 0 is, for the bias.
    c_column: u32,
    alpha: f32,
}

@group(0) @binding(0) var<uniform> p: Params;

alias Block = array<vec4f, 4>;

fn transpose_block(x: Block) -> Block {
    return Block(
        vec4f(x[0].x, x[1].x, x[2].x, x[3].x),
        vec4f(x[0].y, x[1].y, x[2].y, x[3].y),
        vec4f(x[0].z, x[1].z, x[2].z, x[3].z),
        vec4f(x[0].w, x[1].w, x[2].w, x[3].w),
    );
}

// Four rows of op(A) from `row` on, each with its elements k to k + 3.
fn a_block(batch: u32, row: u32, k: u32) -> Block {
    if (A_TRANSPOSED) {
        return transpose_block(Block(
            load_a(batch, k, p.k, row, p.m), load_a(batch, k + 1u, p.k, row, p.m),
            load_a(batch, k + 2u, p.k, row, p.m), load_a(batch, k + 3u, p.k, row, p.m),
        ));
    }
    return Block(
        load_a(batch, row, p.m, k, p.k), load_a(batch, row + 1u, p.m, k, p.k),
        load_a(batch, row + 2u, p.m, k, p.k), load_a(batch, row + 3u, p.m, k, p.k),
    );
}

// Rows k to k + 3 of op(B), each with its four elements from `column` on.
fn b_block(batch: u32, k: u32, column: u32) -> Block {
    if (B_TRANSPOSED) {
        return transpose_block(Block(
            load_b(batch, column, p.n, k, p.k), load_b(batch, column + 1u, p.n, k, p.k),
            load_b(batch, column + 2u, p.n, k, p.k), load_b(batch, column + 3u, p.n, k, p.k),
        ));
    }
    return Block(
        load_b(batch, k, p.k, column, p.n), load_b(batch, k + 1u, p.k, column, p.n),
        load_b(batch, k + 2u, p.k, column, p.n), load_b(batch, k + 3u, p.k, column, p.n),
    );
}
