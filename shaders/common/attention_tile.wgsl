// attention_tile: products of tiles in workgroup memory, for workgroups of 256 invocations.
//
// A tile of scores has ROWS rows and 32 columns, and there are two of them. Invocation (role, y, x) of 2 x 16 x 8 sums a block of the
// tile of its role: SCORE_ROWS rows from row SCORE_ROWS y on, columns 4x to 4x + 3, over chunks of 8 vectors (32 floats) of a row.
// Of ROWS rows of output OWNERS invocations own OUT_ROWS rows each, and of such a row the vectors `column` and `column` + LANES.
// So no invocation has more than 32 sums of output.
//
// constants WIDTH (vectors of a row), ROWS (16, 32, 64), LANES (8, 16, 32; at least WIDTH / 2), OWNERS (128, 256)
// needs     16 (16 ROWS + 544) bytes of workgroup memory
// numerics  a sum adds one product at a time, in order: compilers fuse them

alias Block = array<vec4f, 4>;
alias Outputs = array<Block, 2>;                 // of `column` and of `column` + LANES; only constants index them
const CHUNKS = (WIDTH + 7u) / 8u;
const TILE = 8u * (ROWS + 1u);                   // vectors of a tile
const CHUNK = 8u * 33u;                          // vectors of a chunk of 32 rows
const NEXT = ROWS / 4u;                          // from a row of a block to the next
const SCORE_ROWS = ROWS / 16u;
const OUT_ROWS = ROWS * LANES / OWNERS;
// From the first row of output of an invocation to others in a tile; to itself, where it owns fewer.
const SECOND = select(0u, NEXT, OUT_ROWS > 1u);
const THIRD = select(0u, 2u * NEXT, OUT_ROWS > 2u);
const FOURTH = select(0u, 3u * NEXT, OUT_ROWS > 2u);
const PARTS = (WIDTH + LANES - 1u) / LANES;
const PITCH = LANES * PARTS;                     // vectors of a row of keys or values that outputs are summed from
const WHOLE = max(8u * CHUNKS, PITCH) == WIDTH;  // no column lies past the end of a row
var<workgroup> left: array<vec4f, 2u * TILE>;    // two tiles: chunks of rows, or weights
var<workgroup> right: array<vec4f, 2u * CHUNK>;  // two chunks of 32 rows, or 512 vectors of whole rows

// Where a vector of a query's or key's row stands; rows and columns past the end repeat the last.
fn q_at(batch: u32, query: u32, head: u32, column: u32) -> u32 {
    return query_row(batch, min(query, p.queries - 1u), head) * WIDTH + select(min(column, WIDTH - 1u), column, WHOLE);
}

fn kv_at(batch: u32, key: u32, kv_head: u32, column: u32) -> u32 {
    return kv_row_of(batch, kv_head, min(key, p.keys - 1u)) * WIDTH + select(min(column, WIDTH - 1u), column, WHOLE);
}

// Columns past the end are zero.
fn inside(vector: vec4f, column: u32) -> vec4f { return select(vec4f(), vector, WHOLE || column < WIDTH); }

// The keys that ROWS queries see, from `first` on.
fn rows_start(batch: u32, first: u32) -> u32 {
    let start = tile_start(batch, first);
    if (ROWS < 64u || first + 32u >= p.queries) { return start; }
    return min(start, tile_start(batch, first + 32u));
}

fn rows_limit(batch: u32, first: u32) -> u32 {
    let limit = tile_limit(batch, first);
    if (ROWS < 64u || first + 32u >= p.queries) { return limit; }
    return max(limit, tile_limit(batch, first + 32u));
}

// Four keys side by side.
struct Keys { key: vec4u, near: vec4u, real: vec4<bool>, spans: Spans }

fn keys_from(batch: u32, first: u32) -> Keys {
    let key = vec4u(first) + vec4u(0u, 1u, 2u, 3u);
    let near = min(key, vec4u(p.keys - 1u));
    return Keys(key, near, keys_real(batch, near), key_spans(batch, near));
}

// Which of four keys a query sees, whose bias for them is `term`.
fn sees(batch: u32, query: u32, keys: Keys, term: vec4f) -> vec4<bool> {
    let near = within(keys.key, vec4u(row_start(batch, query)), vec4u(row_limit(batch, query)));
    return keys.real & near & related(keys.spans, query_span(batch, query)) & bias_seen(term);
}

// Where a vector stands in a tile, and in a chunk: rows of a block lie apart, so that neighbours read and write different banks.
fn slot(row: u32, column: u32) -> u32 { return column * (ROWS + 1u) + row % 4u * NEXT + row / 4u; }
fn chunk_slot(row: u32, column: u32) -> u32 { return column * 33u + row % 4u * 8u + row / 4u; }

// sum + a * B, where b0 to b3 are the rows of B.
fn plus(sum: vec4f, a: vec4f, b0: vec4f, b1: vec4f, b2: vec4f, b3: vec4f) -> vec4f {
    var s = sum;
    s += a.x * b0;
    s += a.y * b1;
    s += a.z * b2;
    s += a.w * b3;
    return s;
}

// A number of iterations that compilers do not know: they would unroll the loop, and spill.
fn rolled(count: u32) -> u32 { return select(count, 0u, p.keys == 0u); }

// block + a tile of `left` * transpose(the chunk of `right` from `other` on): scores from two chunks of rows.
fn add_scores(block: Block, tile: u32, other: u32, x: u32, y: u32) -> Block {
    var sum = block;
    var row = tile + slot(SCORE_ROWS * y, 0u);
    var column = other + x;
    for (var c = 0u; c < rolled(8u); c++) {
        let k0 = right[column]; let k1 = right[column + 8u]; let k2 = right[column + 16u]; let k3 = right[column + 24u];
        let b0 = vec4f(k0.x, k1.x, k2.x, k3.x); let b1 = vec4f(k0.y, k1.y, k2.y, k3.y);
        let b2 = vec4f(k0.z, k1.z, k2.z, k3.z); let b3 = vec4f(k0.w, k1.w, k2.w, k3.w);
        sum[0] = plus(sum[0], left[row], b0, b1, b2, b3);
        if (SCORE_ROWS > 1u) { sum[1] = plus(sum[1], left[row + NEXT], b0, b1, b2, b3); }
        if (SCORE_ROWS > 2u) {
            sum[2] = plus(sum[2], left[row + 2u * NEXT], b0, b1, b2, b3);
            sum[3] = plus(sum[3], left[row + 3u * NEXT], b0, b1, b2, b3);
        }
        row += ROWS + 1u;
        column += 33u;
    }
    return sum;
}

// sums + weights * rows: the weights of rows OUT_ROWS y and on from key `key` on, and the rows of so many keys from `rows` on.
fn add_outputs(sums: Outputs, tile: u32, key: u32, rows: u32, keys: u32, column: u32, y: u32) -> Outputs {
    var sum = sums;
    var at = tile + key / 32u * TILE + slot(OUT_ROWS * y, key / 4u % 8u);
    var row = rows + column;
    for (var t = 0u; t < keys / 4u; t++) {
        let w0 = left[at]; let w1 = left[at + SECOND]; let w2 = left[at + THIRD]; let w3 = left[at + FOURTH];
        sum = add_key(sum, vec4f(w0.x, w1.x, w2.x, w3.x), row);
        sum = add_key(sum, vec4f(w0.y, w1.y, w2.y, w3.y), row + PITCH);
        sum = add_key(sum, vec4f(w0.z, w1.z, w2.z, w3.z), row + 2u * PITCH);
        sum = add_key(sum, vec4f(w0.w, w1.w, w2.w, w3.w), row + 3u * PITCH);
        at += ROWS + 1u;
        row += 4u * PITCH;
    }
    return sum;
}

// sums + the weights of one key * its row.
fn add_key(sums: Outputs, weights: vec4f, row: u32) -> Outputs {
    var sum = sums;
    sum[0] = add_weighted(sum[0], weights, right[row]);
    if (PARTS > 1u) { sum[1] = add_weighted(sum[1], weights, right[row + LANES]); }
    return sum;
}

fn add_weighted(block: Block, weights: vec4f, vector: vec4f) -> Block {
    var sum = block;
    sum[0] += weights.x * vector;
    if (OUT_ROWS > 1u) { sum[1] += weights.y * vector; }
    if (OUT_ROWS > 2u) { sum[2] += weights.z * vector; sum[3] += weights.w * vector; }
    return sum;
}
