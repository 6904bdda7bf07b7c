// matmul_tile: C = α op(A) op(B) by tiles in workgroup memory, for GPUs.
//
//   A workgroup of SIDE² invocations computes a tile of 4 SIDE rows and columns, each invocation 4×4 elements of it, from slices of
//   16 along k. The slice after the current one is on its way in registers while the current one is used.
//
// in, out    see matmul_problem
// grid       a workgroup a tile, in the order of tile_at
// constants  SIDE: 16 (64×64 tiles, 8.8 KiB) or 8 (32×32, 4.8 KiB)
// layout     a slice is 4 rows of SIDE blocks of 4×4 elements; vec4 number i of a block lies in lane group i. So blocks are read the same
//            way whether they were stored along k or across it, and 8 neighbours read and write 8 different banks of 16 bytes.
// numerics   f32, each element summed in the order of k

const STRIDE = SIDE + 1u;                  // from one vec4 of a block to the next
const SLICE = 4u * STRIDE + 2u;            // from one row of blocks to the next
const LOADS = 16u / SIDE;                  // vec4s of a slice an invocation loads, of each operand

var<workgroup> a_tile: array<vec4f, 4u * SLICE>;
var<workgroup> b_tile: array<vec4f, 4u * SLICE>;

// vec4 number t of a slice, for a matrix whose rows run along k: (row of the tile, k / 4).
fn along(t: u32) -> vec2u { return vec2u(t / 4u, t % 4u); }

fn place_along(t: u32) -> u32 { return (t % 4u) * SLICE + (t / 4u % 4u) * STRIDE + t / 16u; }

// vec4 number t of a slice, for a matrix whose rows run across k: (k, column of the tile / 4).
fn across(t: u32) -> vec2u { return vec2u(t / SIDE, t % SIDE); }

fn place_across(t: u32) -> u32 { return (t / SIDE / 4u) * SLICE + (t / SIDE % 4u) * STRIDE + t % SIDE; }

fn fetch_a(at: Tile, k: u32, t: u32) -> vec4f {
    if (A_TRANSPOSED) { return load_a(at.batch, k + across(t).x, at.last, at.row + across(t).y * 4u, p.m); }
    return load_a(at.batch, at.row + along(t).x, at.rows, k + along(t).y * 4u, p.k);
}

fn fetch_b(at: Tile, k: u32, t: u32) -> vec4f {
    if (B_TRANSPOSED) { return load_b(at.batch, at.column + along(t).x, p.n, k + along(t).y * 4u, p.k); }
    return load_b(at.batch, k + across(t).x, at.last, at.column + across(t).y * 4u, p.n);
}

@compute @workgroup_size(SIDE * SIDE)
fn matmul_tile(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let at = tile_at(group, 4u * SIDE, 4u * SIDE);
    let mine = vec2u(lane % SIDE, lane / SIDE);
    var acc = Block(vec4f(0.0), vec4f(0.0), vec4f(0.0), vec4f(0.0));
    var a_next: array<vec4f, LOADS>;
    var b_next: array<vec4f, LOADS>;
    for (var i = 0u; i < LOADS; i++) {
        a_next[i] = fetch_a(at, at.first, lane + i * SIDE * SIDE);
        b_next[i] = fetch_b(at, at.first, lane + i * SIDE * SIDE);
    }
    for (var k = at.first; k < at.last; k += 16u) {
        for (var i = 0u; i < LOADS; i++) {
            let t = lane + i * SIDE * SIDE;
            a_tile[select(place_along(t), place_across(t), A_TRANSPOSED)] = a_next[i];
            b_tile[select(place_across(t), place_along(t), B_TRANSPOSED)] = b_next[i];
        }
        workgroupBarrier();
        for (var i = 0u; i < LOADS; i++) {
            a_next[i] = fetch_a(at, k + 16u, lane + i * SIDE * SIDE);
            b_next[i] = fetch_b(at, k + 16u, lane + i * SIDE * SIDE);
        }
        for (var q = 0u; q < 4u; q++) {
            let at_a = q * SLICE + mine.y;
            let at_b = q * SLICE + mine.x;
            var x = Block(a_tile[at_a], a_tile[at_a + STRIDE], a_tile[at_a + 2u * STRIDE], a_tile[at_a + 3u * STRIDE]);
            var y = Block(b_tile[at_b], b_tile[at_b + STRIDE], b_tile[at_b + 2u * STRIDE], b_tile[at_b + 3u * STRIDE]);
            if (A_TRANSPOSED) { x = transpose_block(x); }
            if (B_TRANSPOSED) { y = transpose_block(y); }
            for (var i = 0u; i < 4u; i++) {
                acc[i] += x[i].x * y[0] + x[i].y * y[1] + x[i].z * y[2] + x[i].w * y[3];
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        store(at, at.row + mine.y * 4u + i, at.column + mine.x * 4u, acc[i]);
    }
}
