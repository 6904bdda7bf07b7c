// matmul_problem: the parameters of every matmul kernel, and products of 4×4 blocks.
//
//   C = α op(A) op(B), op(A) (m, k), op(B) (k, n), C (m, n), for each of a batch of matrices, or of groups of rows
//
// constants  A_TRANSPOSED: A lies as (k, m); B_TRANSPOSED: B lies as (n, k); BAND: columns of tiles of a band
// needs      a_line, b_line (matmul_gather_*)

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

// Row and column of tile number `tile` of the rows × columns tiles of a matrix: in bands of BAND columns, so that tiles that are computed
// at a time share rows of A and columns of B.
fn in_bands(tile: u32, rows: u32, columns: u32) -> vec2u {
    if (BAND == 1u) { return vec2u(tile % rows, tile / rows); }
    let first = tile / (BAND * rows) * BAND;
    let of_band = tile - first * rows;
    let wide = min(BAND, columns - first);
    return vec2u(of_band / wide, first + of_band % wide);
}

alias Block = array<vec4f, 4>;

fn transpose_block(x: Block) -> Block {
    return Block(
        vec4f(x[0].x, x[1].x, x[2].x, x[3].x),
        vec4f(x[0].y, x[1].y, x[2].y, x[3].y),
        vec4f(x[0].z, x[1].z, x[2].z, x[3].z),
        vec4f(x[0].w, x[1].w, x[2].w, x[3].w),
    );
}

// The index of an element of a stored matrix.
fn a_index(batch: u32, row: u32, rows: u32, column: u32) -> u32 {
    return batch * p.a_batch + p.a_offset + a_line(row, rows) * p.a_stride + column;
}

fn b_index(batch: u32, row: u32, rows: u32, column: u32) -> u32 {
    return batch * p.b_batch + p.b_offset + b_line(row, rows) * p.b_stride + column;
}

// sum + x · y, y being four rows: one product at a time, else AMD's and NVIDIA's compilers make fewer multiply-adds of it.
fn add_products(sum: vec4f, x: vec4f, y: Block) -> vec4f {
    var s = sum;
    s += x.x * y[0];
    s += x.y * y[1];
    s += x.z * y[2];
    s += x.w * y[3];
    return s;
}
