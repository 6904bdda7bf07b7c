// scatter_rows: rows of a table as the sums of the rows of x that name them.
//
//   out[r, c] = Σ_{i = starts[r]}^{starts[r + 1] − 1} x[order[i], c]
//
// in        x (m, width) Elements   index (m) u32   order (m) u32   starts (all rows + 1) u32
//           partials (2·chunks, width) Elements: sums of the long segments, see scatter_partials
// out       out (rows, width) Elements: a window that begins at row `low`
// grid      BY_ROW, for tables with few rows: one invocation for each Element of out
//           else one for each Element of x in sorted order: the first of a segment sums it; all other rows must be zero already
// needs     the constant BY_ROW; common/elements4 or elements1
// numerics  f32 sums in ascending order of position

struct Params {
    base: u32, groups: u32, count: u32, width: u32, positions: u32,
    low: u32, rows: u32,   // the window
    chunk: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (m, width)
@group(0) @binding(2) var<storage, read> index: array<u32>;           // (m)
@group(0) @binding(3) var<storage, read> order: array<u32>;           // (m)
@group(0) @binding(4) var<storage, read> starts: array<u32>;          // (all rows + 1)
@group(0) @binding(5) var<storage, read> partials: array<Element>;    // (2·chunks, width)
@group(0) @binding(6) var<storage, read_write> out: array<Element>;   // (rows, width)

@compute @workgroup_size(64)
fn scatter_rows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let unit = i / p.width;
    let column = i - unit * p.width;
    var row = p.low + unit;
    var first = unit;
    if (BY_ROW) {
        first = min(starts[row], p.positions);
    } else {
        row = index[min(order[unit], p.positions - 1u)];
        if (row < p.low || row - p.low >= p.rows || starts[row] != unit) { return; }
    }
    let end = min(starts[row + 1u], p.positions);
    var total = Element();
    if (end <= first + p.chunk) {
        for (var k = first; k < end; k++) {
            total += x[min(order[k], p.positions - 1u) * p.width + column];
        }
    } else {
        // Only in the first chunk can another segment stand in front.
        let chunk = first / p.chunk;
        let behind = select(1u, 0u, chunk * p.chunk == first);
        total = partials[(chunk * 2u + behind) * p.width + column];
        for (var k = chunk + 1u; k * p.chunk < end; k++) {
            total += partials[k * 2u * p.width + column];
        }
    }
    out[(row - p.low) * p.width + column] = total;
}
