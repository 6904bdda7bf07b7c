// matmul_problem: the parameters of every matmul kernel, and 4×4 blocks of its operands.
//
//   C = α op(A) op(B), op(A) (m, k), op(B) (k, n), C (m, n), for each of a batch of matrices, or of groups of rows
//
// constants  A_TRANSPOSED: A lies as (k, m); B_TRANSPOSED: B lies as (n, k)
// needs      load_a, load_b (matmul_a_*, matmul_b_*), store (matmul_out_*) and tile_at (matmul_tiles*)
// edges      elements outside a matrix load as zero and are not stored, so kernels need no guards of their own

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
    // The group that matrix 0 of the batch belongs to.
    first_group: u32,
}

@group(0) @binding(0) var<uniform> p: Params;

// Where a tile lies: its matrix of the batch, its first row and column, where the rows that it may read and those that it may write
// end, and which stretch of k it sums over.
struct Tile { batch: u32, row: u32, column: u32, rows: u32, end: u32, first: u32, last: u32 }

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
fn a_block(at: Tile, row: u32, k: u32) -> Block {
    if (A_TRANSPOSED) {
        return transpose_block(Block(
            load_a(at.batch, k, at.last, row, p.m), load_a(at.batch, k + 1u, at.last, row, p.m),
            load_a(at.batch, k + 2u, at.last, row, p.m), load_a(at.batch, k + 3u, at.last, row, p.m),
        ));
    }
    return Block(
        load_a(at.batch, row, at.rows, k, p.k), load_a(at.batch, row + 1u, at.rows, k, p.k),
        load_a(at.batch, row + 2u, at.rows, k, p.k), load_a(at.batch, row + 3u, at.rows, k, p.k),
    );
}

// Rows k to k + 3 of op(B), each with its four elements from `column` on.
fn b_block(at: Tile, k: u32, column: u32) -> Block {
    if (B_TRANSPOSED) {
        return transpose_block(Block(
            load_b(at.batch, column, p.n, k, p.k), load_b(at.batch, column + 1u, p.n, k, p.k),
            load_b(at.batch, column + 2u, p.n, k, p.k), load_b(at.batch, column + 3u, p.n, k, p.k),
        ));
    }
    return Block(
        load_b(at.batch, k, at.last, column, p.n), load_b(at.batch, k + 1u, at.last, column, p.n),
        load_b(at.batch, k + 2u, at.last, column, p.n), load_b(at.batch, k + 3u, at.last, column, p.n),
    );
}
