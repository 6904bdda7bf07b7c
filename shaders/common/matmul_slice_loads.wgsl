// matmul_slice_loads: the vec4s of a slice of both operands that an invocation brings to workgroup memory; what their loads have in
// common from slice to slice is computed once.
//
// layout     a slice is FOURS = DEPTH / 4 rows of blocks of 4×4 elements, STRIDE from one vec4 of a block to the next, SLICE from one row
//            of blocks to the next. So blocks are read the same way whether they were stored along k or across it, and 8 neighbours read
//            and write 8 different banks of 16 bytes.
// edges      what lies outside along k is zero; in place of rows and columns outside, which are not stored, others are loaded

// Where a vec4 of each slice comes from and goes to.
struct Source {
    index: u32,       // of its first element in the first slice
    line: u32,        // its place along k in a slice
    column: u32,      // its first column, of a matrix whose rows run across k
    place: u32,       // in a slice in workgroup memory
}

// vec4 number t of a slice, for a matrix whose rows run along k: (row of the tile, place along k). The next one of an invocation is
// SIZE / FOURS rows further.
fn along(t: u32) -> vec2u { return vec2u(t / FOURS, t % FOURS * 4u); }

fn place_along(t: u32, stride: u32, slice: u32) -> u32 { return t % FOURS * slice + t / FOURS % 4u * stride + t / DEPTH; }

// vec4 number t of a slice, for a matrix whose rows run across k: (place along k, column of the tile). The next one of an invocation is
// SIZE / blocks further along k.
fn across(t: u32, blocks: u32) -> vec2u { return vec2u(t / blocks, t % blocks * 4u); }

fn place_across(t: u32, blocks: u32, stride: u32, slice: u32) -> u32 {
    return t / blocks / 4u * slice + t / blocks % 4u * stride + t % blocks;
}

// Of operand A, vec4 `number` of an invocation: 0 or 1.
fn source_a(at: Tile, lane: u32, number: u32) -> Source {
    if (A_TRANSPOSED) {
        let c = across(lane, A_BLOCKS);
        let line = c.x + number * (SIZE / A_BLOCKS);
        let column = min(at.row + c.y, p.m - 1u);
        return Source(a_index(at.batch, at.first + line, at.last, column), line, column,
            place_across(lane, A_BLOCKS, A_STRIDE, A_SLICE) + number * (SIZE / A_BLOCKS / 4u) * A_SLICE);
    }
    let c = along(lane);
    let row = min(at.row + c.x + number * (SIZE / FOURS), max(at.rows, 1u) - 1u);
    return Source(a_index(at.batch, row, at.rows, at.first + c.y), c.y, 0u, place_along(lane, A_STRIDE, A_SLICE) + number * (SIZE / DEPTH));
}

fn source_b(at: Tile, lane: u32, number: u32) -> Source {
    if (!B_TRANSPOSED) {
        let c = across(lane, B_BLOCKS);
        let line = c.x + number * (SIZE / B_BLOCKS);
        let column = min(at.column + c.y, p.n - 1u);
        return Source(b_index(at.batch, at.first + line, at.last, column), line, column,
            place_across(lane, B_BLOCKS, B_STRIDE, B_SLICE) + number * (SIZE / B_BLOCKS / 4u) * B_SLICE);
    }
    let c = along(lane);
    let row = min(at.column + c.x + number * (SIZE / FOURS), p.n - 1u);
    return Source(b_index(at.batch, row, p.n, at.first + c.y), c.y, 0u, place_along(lane, B_STRIDE, B_SLICE) + number * (SIZE / DEPTH));
}

// The vec4 of the slice from k on.
fn fetch_a(at: Tile, s: Source, k: u32) -> vec4f {
    // Rows along k that were gathered have no common step.
    if (A_GATHERED && A_TRANSPOSED) { return a_four(a_index(at.batch, k + s.line, at.last, s.column), k + s.line < at.last, p.m - s.column); }
    let step = select(1u, p.a_stride, A_TRANSPOSED);
    let there = select(at.last - k - s.line, p.m - s.column, A_TRANSPOSED);
    return a_four(s.index + (k - at.first) * step, k + s.line < at.last, there);
}

fn fetch_b(at: Tile, s: Source, k: u32) -> vec4f {
    let inside = k + s.line < at.last;
    if (B_GATHERED && !B_TRANSPOSED) { return b_four(b_index(at.batch, k + s.line, at.last, s.column), inside, p.n - s.column); }
    let step = select(p.b_stride, 1u, B_TRANSPOSED);
    return b_four(s.index + (k - at.first) * step, inside, select(p.n - s.column, at.last - k - s.line, B_TRANSPOSED));
}
