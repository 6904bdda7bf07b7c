// matmul_row_quants: C = α A Bᵀ for a few rows and a quantised B, as in decoding, for GPUs: B is read once, by loads of 16 bytes.
//
//   A weight is d q + m, so that a block's part of a sum is d Σ a q + m Σ a. An invocation computes 4 neighbouring columns of all rows,
//   over every SLICES-th block of 32 along k; neighbours load neighbouring blocks.
//
// in, out    see matmul_problem; scales of B at binding 4
// grid       a workgroup a tile of ROWS × 4 LANES, in the order of tile_at
// constants  ROWS: 1, 2 or 4 (Apple's and Intel's compilers spill the sums of 8 rows, two of each); LANES and SLICES: a workgroup has
//            LANES × SLICES invocations
// needs      side, unpacked, HAS_OFFSET and step_and_offset (weight_*, weights_*), block_at and block_words (matmul_b_blocks);
//            add_rows and store_sums (matmul_few_rows)
// numerics   f32

// The sum of A's elements in a block, for each row.
struct Totals { r0: f32, r1: f32, r2: f32, r3: f32 }

fn total(x: vec4f) -> f32 { return (x.x + x.y) + (x.z + x.w); }

fn add_totals(totals: ptr<function, Totals>, rows: Rows, four: u32) {
    if (!HAS_OFFSET) { return; }
    (*totals).r0 += total(a[rows.r0 + four]);
    if (ROWS > 1u) { (*totals).r1 += total(a[rows.r1 + four]); }
    if (ROWS > 2u) {
        (*totals).r2 += total(a[rows.r2 + four]);
        (*totals).r3 += total(a[rows.r3 + four]);
    }
}

// Quants i to i + 3 of a word of each of four columns, times four elements of A from `four` on.
fn add_quants(sums: ptr<function, Sums>, totals: ptr<function, Totals>, rows: Rows, four: u32, words: vec4u, i: u32, beside: Side) {
    let q = Block(unpacked(words, i, beside), unpacked(words, i + 1u, beside), unpacked(words, i + 2u, beside), unpacked(words, i + 3u, beside));
    add_rows(sums, rows, four, q);
    add_totals(totals, rows, four);
}

// One word of each of four columns, number `word` of a block of A that begins at `four`.
fn add_word(sums: ptr<function, Sums>, totals: ptr<function, Totals>, rows: Rows, at: vec4u, four: u32, word: u32, words: vec4u) {
    let beside = side(at, word);
    let first = four + word * (WORD_WEIGHTS / 4u);
    add_quants(sums, totals, rows, first, words, 0u, beside);
    if (WORD_WEIGHTS > 4u) { add_quants(sums, totals, rows, first + 1u, words, 4u, beside); }
    if (WORD_WEIGHTS > 8u) {
        add_quants(sums, totals, rows, first + 2u, words, 8u, beside);
        add_quants(sums, totals, rows, first + 3u, words, 12u, beside);
    }
}

fn add_load(sums: ptr<function, Sums>, totals: ptr<function, Totals>, rows: Rows, at: vec4u, four: u32, load: u32) {
    let x = block_words(at.x, load);
    let y = block_words(at.y, load);
    let z = block_words(at.z, load);
    let t = block_words(at.w, load);
    add_word(sums, totals, rows, at, four, load * 4u, vec4u(x.x, y.x, z.x, t.x));
    add_word(sums, totals, rows, at, four, load * 4u + 1u, vec4u(x.y, y.y, z.y, t.y));
    if (LOAD_WORDS == 4u) {
        add_word(sums, totals, rows, at, four, load * 4u + 2u, vec4u(x.z, y.z, z.z, t.z));
        add_word(sums, totals, rows, at, four, load * 4u + 3u, vec4u(x.w, y.w, z.w, t.w));
    }
}

// What a block adds to the sums.
fn add_scaled(acc: ptr<function, Sums>, sums: Sums, totals: Totals, d: vec4f, m: vec4f) {
    (*acc).r0 += d * sums.r0;
    if (ROWS > 1u) { (*acc).r1 += d * sums.r1; }
    if (ROWS > 2u) {
        (*acc).r2 += d * sums.r2;
        (*acc).r3 += d * sums.r3;
    }
    if (!HAS_OFFSET) { return; }
    (*acc).r0 += m * totals.r0;
    if (ROWS > 1u) { (*acc).r1 += m * totals.r1; }
    if (ROWS > 2u) {
        (*acc).r2 += m * totals.r2;
        (*acc).r3 += m * totals.r3;
    }
}

@compute @workgroup_size(LANES * SLICES)
fn matmul_row_quants(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) index: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let lane = index / SLICES;
    let slice = index % SLICES;
    let tile = tile_at(group, ROWS, 4u * LANES);
    let column = tile.column + lane * 4u;
    let rows = rows_of(tile);
    let first = vec4u(block_at(tile.batch, column, p.n, 0u), block_at(tile.batch, column + 1u, p.n, 0u),
        block_at(tile.batch, column + 2u, p.n, 0u), block_at(tile.batch, column + 3u, p.n, 0u));
    var acc = Sums();
    for (var block = slice; block < tile.last / 32u; block += SLICES) {
        let at = first + block;
        let s0 = step_and_offset(at.x);
        let s1 = step_and_offset(at.y);
        let s2 = step_and_offset(at.z);
        let s3 = step_and_offset(at.w);
        let d = vec4f(s0.x, s1.x, s2.x, s3.x);
        let m = vec4f(s0.y, s1.y, s2.y, s3.y);
        var sums = Sums();
        var totals = Totals();
        add_load(&sums, &totals, rows, at, block * 8u, 0u);
        if (LOADS > 1u) { add_load(&sums, &totals, rows, at, block * 8u, 1u); }
        add_scaled(&acc, sums, totals, d, m);
    }
    store_sums(tile, index, lane, slice, acc, tile.column, 4u);
}
