// column_sum: sums of columns over blocks of rows; one stage of a deterministic sum.
//
//   out[b, c] = factor Σ x[r, c] over the rows b·block ≤ r < (b + 1)·block
//
// A first launch sums blocks of rows, a second one the blocks. The last row may be incomplete: elements from `count` on are
// not there and count as zero.
//
// in        x (rows, columns) f32
// out       out (blocks, columns) f32
// grid      blocks × workgroups of 64 columns (256 where 4 divides both `columns` and `count`)
// needs     common/elements4 or elements1; `columns` and `count` are in units of Element
// numerics  f32 sums in the order of the rows

struct Params { base: u32, groups: u32, count: u32, columns: u32, block: u32, factor: f32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read_write> out: array<Element>;   // (blocks, columns)

@compute @workgroup_size(64)
fn column_sum(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let across = (p.columns + 63u) / 64u;
    let block = group / across;
    let column = (group % across) * 64u + lane;
    if (column >= p.columns) { return; }
    let first = block * p.block * p.columns + column;
    let end = min((block + 1u) * p.block * p.columns, p.count);
    var sum: Element;
    for (var i = first; i < end; i += p.columns) {
        sum += x[i];
    }
    out[block * p.columns + column] = sum * p.factor;
}
