// split2: the columns of a matrix split into two matrices.
//
//   first[r, c] = x[r, c],  second[r, c] = x[r, c + width1]
//
// in        x (rows, width) words
// out       first (rows, width1) words   second (rows, width − width1) words
// grid      one invocation for each word of x
// needs     a snippet that names Word
// numerics  a copy of bits

struct Params { base: u32, groups: u32, count: u32, width: u32, width1: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;              // (rows, width)
@group(0) @binding(2) var<storage, read_write> first: array<Word>;    // (rows, width1)
@group(0) @binding(3) var<storage, read_write> second: array<Word>;   // (rows, width − width1)

@compute @workgroup_size(256)
fn split2(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    if (column < p.width1) {
        first[row * p.width1 + column] = x[i];
    } else {
        second[row * (p.width - p.width1) + column - p.width1] = x[i];
    }
}
