// attention_shuffle: tiles that lie in the registers of one subgroup.
//
// A tile has ROWS rows; a lane holds 4 neighbouring columns of each: row r * LANES + j is tile[r][j].

const ROWS = LANES * R;                          // rows a subgroup owns
const BLOCK = LANES * 4u;                        // rows it walks over at a time, the columns of a tile
const PARTS = (WIDTH + LANES - 1u) / LANES;      // tiles that hold ROWS whole rows of a tensor
alias Tile = array<array<vec4f, LANES>, R>;

// tile[r][j] += (lane j's a) * b, for the rows whose left factors the lanes hold.
fn add_rows(tile: ptr<function, Tile>, r: u32, a: vec4f, b: mat4x4f) {
    for (var j = 0u; j < LANES; j++) {
        (*tile)[r][j] += subgroupShuffle(a.x, j) * b[0] + subgroupShuffle(a.y, j) * b[1]
                       + subgroupShuffle(a.z, j) * b[2] + subgroupShuffle(a.w, j) * b[3];
    }
}

fn combine(a: vec4f, b: mat4x4f) -> vec4f { return a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3]; }

// Steps written out: in a loop the driver takes each shuffle for one with a variable lane, which is slow.
fn max_over_lanes(x: f32) -> f32 {
    var most = max(x, subgroupShuffleXor(x, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    if (LANES > 4u) { most = max(most, subgroupShuffleXor(most, 4u)); }
    return most;
}

fn sum_over_lanes(x: f32) -> f32 {
    var sum = x + subgroupShuffleXor(x, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    if (LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    return sum;
}
