// concat2: two matrices side by side.
//
//   out[r, c] = first[r, c]  for c < width1,  else second[r, c − width1]
//
// in        first (rows, width1) words   second (rows, width − width1) words
// out       out (rows, width) words
// grid      one invocation for each word of out
// needs     a snippet that names Word
// numerics  a copy of bits

struct Params { base: u32, groups: u32, count: u32, width: u32, width1: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> first: array<Word>;       // (rows, width1)
@group(0) @binding(2) var<storage, read> second: array<Word>;      // (rows, width − width1)
@group(0) @binding(3) var<storage, read_write> out: array<Word>;   // (rows, width)

@compute @workgroup_size(256)
fn concat2(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    if (column < p.width1) {
        out[i] = first[row * p.width1 + column];
    } else {
        out[i] = second[row * (p.width - p.width1) + column - p.width1];
    }
}
