// split3: the columns of a matrix split into three matrices (queries, keys and values of a joint projection).
//
//   first[r, c] = x[r, c],  second[r, c] = x[r, c + width1],  third[r, c] = x[r, c + width1 + width2]
//
// in        x (rows, width) words
// out       first (rows, width1)   second (rows, width2)   third (rows, width − width1 − width2), words
// grid      one invocation for each word of x
// needs     a snippet that names Word
// numerics  a copy of bits

struct Params { base: u32, groups: u32, count: u32, width: u32, width1: u32, width2: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;              // (rows, width)
@group(0) @binding(2) var<storage, read_write> first: array<Word>;    // (rows, width1)
@group(0) @binding(3) var<storage, read_write> second: array<Word>;   // (rows, width2)
@group(0) @binding(4) var<storage, read_write> third: array<Word>;    // (rows, width − width1 − width2)

@compute @workgroup_size(256)
fn split3(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    let third_start = p.width1 + p.width2;
    if (column < p.width1) {
        first[row * p.width1 + column] = x[i];
    } else if (column < third_start) {
        second[row * p.width2 + column - p.width1] = x[i];
    } else {
        third[row * (p.width - third_start) + column - third_start] = x[i];
    }
}
