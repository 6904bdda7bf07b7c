// transpose: every matrix of a batch transposed, through tiles of workgroup memory, so that reads and writes both run along rows.
//
//   out[b, c, r] = x[b, r, c]
//
// in        x (batch, rows, columns) words
// out       out (batch, columns, rows) words
// grid      one workgroup for each tile of 32×32
// needs     4.1 KiB of workgroup memory
// numerics  a copy of bits

struct Params { base: u32, groups: u32, rows: u32, columns: u32, tile_rows: u32, tile_columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;           // (batch, rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<u32>;   // (batch, columns, rows)

var<workgroup> tile: array<u32, 1056>;   // 32 rows of 33: the odd pitch keeps columns apart in banks

@compute @workgroup_size(256)
fn transpose(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let tiles = p.tile_rows * p.tile_columns;
    let batch = group / tiles;
    let row = (group % tiles) / p.tile_columns * 32u;
    let column = (group % tiles) % p.tile_columns * 32u;
    let first = batch * p.rows * p.columns;
    let along = lane % 32u;
    for (var k = lane / 32u; k < 32u; k += 8u) {
        let inside = row + k < p.rows && column + along < p.columns;
        var word = 0u;
        if (inside) { word = x[first + (row + k) * p.columns + column + along]; }
        tile[k * 33u + along] = word;
    }
    workgroupBarrier();
    for (var k = lane / 32u; k < 32u; k += 8u) {
        if (column + k < p.columns && row + along < p.rows) {
            out[first + (column + k) * p.rows + row + along] = tile[along * 33u + k];
        }
    }
}
