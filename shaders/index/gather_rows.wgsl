// gather_rows: rows of a table by index; an index that names no row gives zeros.
//
//   out[m, c] = table[index[m], c]  if index[m] < rows,  else 0
//
// in        table (rows, width) Packed: a window of the table that begins at row `low`   index (m) u32
// out       out (m, width) Elements
// grid      one invocation for each Element of out
// needs     a table snippet (Packed, Element, table_at)
// numerics  exact
//
// A table that is larger than a binding is read window by window: the first writes all of out, the others their rows.

struct Params {
    base: u32, groups: u32,
    count: u32, width: u32,               // Elements of out, of a row
    low: u32, rows: u32, is_first: u32,   // the window
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<Packed>;        // (rows, width)
@group(0) @binding(2) var<storage, read> index: array<u32>;           // (m)
@group(0) @binding(3) var<storage, read_write> out: array<Element>;   // (m, width)

@compute @workgroup_size(256)
fn gather_rows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let m = i / p.width;
    let row = index[m];
    if (row >= p.low && row - p.low < p.rows) {
        out[i] = table_at((row - p.low) * p.width + i - m * p.width);
    } else if (p.is_first == 1u) {
        out[i] = Element();
    }
}
