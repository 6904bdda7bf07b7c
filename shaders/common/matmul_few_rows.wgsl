// matmul_few_rows: sums of up to 8 rows and four columns an invocation, for the kernels of GPUs for few rows.
//
//   A workgroup has LANES × SLICES invocations. Each lane has columns of its own, each slice a part of k; the slices are summed at the
//   end, in order.
//
// constants  ROWS: 1, 2, 4 or 8; LANES; SLICES, at least 4
// needs      a (matmul_a_vec4), store (matmul_out_*); 16 LANES × SLICES bytes of workgroup memory for each of up to 4 rows
// edges      rows past the last one are computed as the last and become zeros

const PART = LANES * SLICES;

var<workgroup> partial: array<vec4f, min(ROWS, 4u) * PART>;

// Values of each row, in variables of their own: compilers put arrays in memory. Rows from ROWS on vanish.
struct Rows { r0: u32, r1: u32, r2: u32, r3: u32, r4: u32, r5: u32, r6: u32, r7: u32 }
struct Sums { r0: vec4f, r1: vec4f, r2: vec4f, r3: vec4f, r4: vec4f, r5: vec4f, r6: vec4f, r7: vec4f }

fn row_of(at: Tile, row: u32) -> u32 { return a_index(at.batch, min(at.row + row, max(at.rows, 1u) - 1u), at.rows, 0u) / 4u; }

// Where the rows of A of a tile begin, in fours.
fn rows_of(at: Tile) -> Rows {
    var rows = Rows();
    rows.r0 = row_of(at, 0u);
    if (ROWS > 1u) { rows.r1 = row_of(at, 1u); }
    if (ROWS > 2u) {
        rows.r2 = row_of(at, 2u);
        rows.r3 = row_of(at, 3u);
    }
    if (ROWS > 4u) {
        rows.r4 = row_of(at, 4u);
        rows.r5 = row_of(at, 5u);
        rows.r6 = row_of(at, 6u);
        rows.r7 = row_of(at, 7u);
    }
    return rows;
}

// Adds the products of elements 4 four to 4 four + 3 of each row of A and of four rows of op(B).
fn add_rows(sums: ptr<function, Sums>, rows: Rows, four: u32, y: Block) {
    (*sums).r0 = add_products((*sums).r0, a[rows.r0 + four], y);
    if (ROWS > 1u) { (*sums).r1 = add_products((*sums).r1, a[rows.r1 + four], y); }
    if (ROWS > 2u) {
        (*sums).r2 = add_products((*sums).r2, a[rows.r2 + four], y);
        (*sums).r3 = add_products((*sums).r3, a[rows.r3 + four], y);
    }
    if (ROWS > 4u) {
        (*sums).r4 = add_products((*sums).r4, a[rows.r4 + four], y);
        (*sums).r5 = add_products((*sums).r5, a[rows.r5 + four], y);
        (*sums).r6 = add_products((*sums).r6, a[rows.r6 + four], y);
        (*sums).r7 = add_products((*sums).r7, a[rows.r7 + four], y);
    }
}

// Sums the slices of one row and lane for each of the first invocations, from row `first` on; lane 0 has four columns from `column` on,
// the next lane those `step` further.
fn store_total(at: Tile, index: u32, first: u32, column: u32, step: u32) {
    if (index >= min(ROWS, 4u) * LANES) { return; }
    let lane = index % LANES;
    var sum = vec4f();
    for (var slice = 0u; slice < SLICES; slice++) { sum += partial[index / LANES * PART + slice * LANES + lane]; }
    let row = at.row + first + index / LANES;
    store(at, row, column + lane * step, select(vec4f(0.0), sum, row < at.rows));
}

// Stores the sums of all slices; to be called by all invocations.
fn store_sums(at: Tile, index: u32, lane: u32, slice: u32, sums: Sums, column: u32, step: u32) {
    let own = slice * LANES + lane;
    partial[own] = sums.r0;
    if (ROWS > 1u) { partial[PART + own] = sums.r1; }
    if (ROWS > 2u) {
        partial[2u * PART + own] = sums.r2;
        partial[3u * PART + own] = sums.r3;
    }
    workgroupBarrier();
    store_total(at, index, 0u, column, step);
    if (ROWS > 4u) {
        workgroupBarrier();
        partial[own] = sums.r4;
        partial[PART + own] = sums.r5;
        partial[2u * PART + own] = sums.r6;
        partial[3u * PART + own] = sums.r7;
        workgroupBarrier();
        store_total(at, index, 4u, column, step);
    }
}
