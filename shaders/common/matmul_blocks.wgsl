// matmul_blocks: 4×4 blocks of the operands of a product.
//
// needs  a_four, b_four (matmul_a_*, matmul_b_*)
// edges  elements outside a matrix load as zero, so kernels need no guards of their own

// Elements column to column + 3 of a row of a stored matrix (rows, columns); zero outside.
fn load_a(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    return a_four(a_index(batch, row, rows, column), row < rows && column < columns, columns - column);
}

fn load_b(batch: u32, row: u32, rows: u32, column: u32, columns: u32) -> vec4f {
    return b_four(b_index(batch, row, rows, column), row < rows && column < columns, columns - column);
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
