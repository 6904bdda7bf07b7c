// matmul_matrix: C = α op(A) op(B) on the GPU's matrix units.
//
//   Four subgroups of a workgroup compute a tile of 4 UNIT × 4 UNIT, each 2 × 2 matrices of it, from slices of 2 UNIT along k. Both operands
//   are rounded to what the units multiply (Held) on their way to workgroup memory, and lie there as they are stored.
//
// in, out    see matmul_problem
// grid       a workgroup a tile, in the order of tile_at
// constants  UNIT: 8 or 16; INVOCATIONS: four times the largest subgroup; SUBGROUP_MIN: the smallest. Where subgroups are smaller than the
//            largest, those beyond the fourth compute what others do, since matrices want uniform control flow, and it is not stored
// needs      Held, Left, Right, Sum (matmul_units*); load_a, load_b (matmul_blocks); workgroup memory: 19 KiB for units of 16
// numerics   factors rounded to Held, products and sums in f32 in an order that is the units' own

const SIDE = 4u * UNIT;
const DEPTH = 2u * UNIT;
// Eight elements more than a row has, so that rows begin in other banks.
const A_PITCH = select(DEPTH, SIDE, A_TRANSPOSED) + 8u;
const B_PITCH = select(SIDE, DEPTH, B_TRANSPOSED) + 8u;
const BAND_PITCH = 2u * UNIT + 4u;

var<workgroup> a_tile: array<Held, select(SIDE, DEPTH, A_TRANSPOSED) * A_PITCH>;
var<workgroup> b_tile: array<Held, select(DEPTH, SIDE, B_TRANSPOSED) * B_PITCH>;
var<workgroup> band: array<f32, INVOCATIONS / SUBGROUP_MIN * UNIT * BAND_PITCH>;

fn hold_a(at: Tile, k: u32, lane: u32) {
    for (var t = lane; t < SIDE * DEPTH / 4u; t += INVOCATIONS) {
        let fours = select(DEPTH, SIDE, A_TRANSPOSED) / 4u;
        let line = t / fours;
        let four = t % fours * 4u;
        var x = vec4f();
        if (A_TRANSPOSED) {
            x = load_a(at.batch, k + line, at.last, at.row + four, p.m);
        } else {
            x = load_a(at.batch, at.row + line, at.rows, k + four, at.last);
        }
        let i = line * A_PITCH + four;
        a_tile[i] = Held(x.x);
        a_tile[i + 1u] = Held(x.y);
        a_tile[i + 2u] = Held(x.z);
        a_tile[i + 3u] = Held(x.w);
    }
}

fn hold_b(at: Tile, k: u32, lane: u32) {
    for (var t = lane; t < SIDE * DEPTH / 4u; t += INVOCATIONS) {
        let fours = select(SIDE, DEPTH, B_TRANSPOSED) / 4u;
        let line = t / fours;
        let four = t % fours * 4u;
        var x = vec4f();
        if (B_TRANSPOSED) {
            x = load_b(at.batch, at.column + line, p.n, k + four, at.last);
        } else {
            x = load_b(at.batch, k + line, at.last, at.column + four, p.n);
        }
        let i = line * B_PITCH + four;
        b_tile[i] = Held(x.x);
        b_tile[i + 1u] = Held(x.y);
        b_tile[i + 2u] = Held(x.z);
        b_tile[i + 3u] = Held(x.w);
    }
}

// Where the matrix of a slice that begins at this row and column lies. Indices of matrices are values: naga wants them so.
fn a_place(row: u32, k: u32) -> u32 { return select(row * A_PITCH + k, k * A_PITCH + row, A_TRANSPOSED); }

fn b_place(k: u32, column: u32) -> u32 { return select(k * B_PITCH + column, column * B_PITCH + k, B_TRANSPOSED); }

// Stores the band that the subgroups have put into workgroup memory: upper or lower rows of their matrices.
fn store_band(at: Tile, lower: u32, lane: u32) {
    for (var t = lane; t < 2u * UNIT * UNIT; t += INVOCATIONS) {
        let line = t / (UNIT / 2u);
        let four = t % (UNIT / 2u) * 4u;
        let i = line * BAND_PITCH + four;
        let quadrant = line / UNIT;
        let row = at.row + quadrant / 2u * 2u * UNIT + lower * UNIT + line % UNIT;
        let x = vec4f(band[i], band[i + 1u], band[i + 2u], band[i + 3u]);
        store(at, row, at.column + quadrant % 2u * 2u * UNIT + four, select(vec4f(0.0), x, row < at.rows));
    }
}

@compute @workgroup_size(INVOCATIONS)
fn matmul_matrix(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let at = tile_at(group, SIDE, SIDE);
    let quadrant = lane / size % 4u;
    let row = quadrant / 2u * 2u * UNIT;
    let column = quadrant % 2u * 2u * UNIT;
    var c00: Sum;
    var c01: Sum;
    var c10: Sum;
    var c11: Sum;
    var a0: Left;
    var a1: Left;
    var b0: Right;
    var b1: Right;
    for (var k = at.first; k < at.last; k += DEPTH) {
        hold_a(at, k, lane);
        hold_b(at, k, lane);
        workgroupBarrier();
        for (var q = 0u; q < DEPTH; q += UNIT) {
            let i0 = a_place(row, q);
            let i1 = a_place(row + UNIT, q);
            let j0 = b_place(q, column);
            let j1 = b_place(q, column + UNIT);
            if (A_TRANSPOSED) {
                a0 = coopLoad<Left>(&a_tile[i0], A_PITCH);
                a1 = coopLoad<Left>(&a_tile[i1], A_PITCH);
            } else {
                a0 = coopLoadT<Left>(&a_tile[i0], A_PITCH);
                a1 = coopLoadT<Left>(&a_tile[i1], A_PITCH);
            }
            if (B_TRANSPOSED) {
                b0 = coopLoad<Right>(&b_tile[j0], B_PITCH);
                b1 = coopLoad<Right>(&b_tile[j1], B_PITCH);
            } else {
                b0 = coopLoadT<Right>(&b_tile[j0], B_PITCH);
                b1 = coopLoadT<Right>(&b_tile[j1], B_PITCH);
            }
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
        }
        workgroupBarrier();
    }
    let place = lane / size * UNIT * BAND_PITCH;
    let next = place + UNIT;
    coopStoreT(c00, &band[place], BAND_PITCH);
    coopStoreT(c01, &band[next], BAND_PITCH);
    workgroupBarrier();
    store_band(at, 0u, lane);
    workgroupBarrier();
    coopStoreT(c10, &band[place], BAND_PITCH);
    coopStoreT(c11, &band[next], BAND_PITCH);
    workgroupBarrier();
    store_band(at, 1u, lane);
}
