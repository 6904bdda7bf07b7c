// elementwise_row: a row added to, or multiplied into, every row of a tensor.
//
//   out[r, c] = x[r, c] + row[c]   (OPERATION 0)
//   out[r, c] = x[r, c] row[c]     (OPERATION 1)
//
// in        x (rows, columns) f32   row (columns) f32
// out       out (rows, columns) f32
// grid      one invocation for 1 element (4 where 4 divides the columns)
// needs     the constant OPERATION; common/elements4 or elements1, `count` and `columns` in units of Element
// numerics  one rounding

struct Params { base: u32, groups: u32, count: u32, columns: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, columns)
@group(0) @binding(2) var<storage, read> row: array<Element>;         // (columns)
@group(0) @binding(3) var<storage, read_write> out: array<Element>;   // (rows, columns)

@compute @workgroup_size(64)
fn elementwise_row(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i < p.count) {
        let c = i % p.columns;
        switch (OPERATION) {
            case 0u: { out[i] = x[i] + row[c]; }
            default: { out[i] = x[i] * row[c]; }
        }
    }
}
