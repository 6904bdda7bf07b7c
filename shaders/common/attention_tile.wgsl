// attention_tile: products of 32 x 32 tiles in workgroup memory, for workgroups of 64 invocations, 8 KiB.
//
// Invocation (x, y) of 8 x 8 owns rows 4y to 4y + 3 and columns 4x to 4x + 3 of a tile of scores: block[i] is row 4y + i.
// Of a chunk of 8 vectors (32 floats) of a tensor's rows it owns vector x of the same four rows.
// Columns are exchanged by the row, so that the eight rows 4x + j that neighbours read lie in different banks.

alias Block = array<vec4f, 4>;
const CHUNKS = (WIDTH + 7u) / 8u;                // chunks of a tensor's row
var<workgroup> left: array<vec4f, 256>;          // 32 rows of 8 vectors
var<workgroup> right: array<vec4f, 256>;

fn slot(row: u32, column: u32) -> u32 { return row * 8u + (column ^ (row / 4u)); }

// block + left * transpose(right): scores from two chunks of rows.
fn scores_of(block: Block, x: u32, y: u32) -> Block {
    var sum = block;
    for (var c = 0u; c < 8u; c++) {
        let b0 = right[slot(4u * x, c)]; let b1 = right[slot(4u * x + 1u, c)];
        let b2 = right[slot(4u * x + 2u, c)]; let b3 = right[slot(4u * x + 3u, c)];
        for (var i = 0u; i < 4u; i++) {
            let a = left[slot(4u * y + i, c)];
            sum[i] += vec4f(dot(a, b0), dot(a, b1), dot(a, b2), dot(a, b3));
        }
    }
    return sum;
}

// block + left * right: a chunk of output rows from a tile of weights and a chunk of rows.
fn weighted(block: Block, x: u32, y: u32) -> Block {
    var sum = block;
    for (var t = 0u; t < 8u; t++) {
        let b0 = right[slot(4u * t, x)]; let b1 = right[slot(4u * t + 1u, x)];
        let b2 = right[slot(4u * t + 2u, x)]; let b3 = right[slot(4u * t + 3u, x)];
        for (var i = 0u; i < 4u; i++) {
            let a = left[slot(4u * y + i, t)];
            sum[i] += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
        }
    }
    return sum;
}
