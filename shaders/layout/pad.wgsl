// pad: a matrix becomes a window of columns of a wider one that is zero elsewhere (the gradient of a slice).
//
//   out[r, c] = x[r, c − start]  for start ≤ c < start + x_width,  else 0
//
// in        x (rows, x_width) words
// out       out (rows, width) words
// grid      one invocation for each word of out
// needs     a snippet that names Word
// numerics  a copy of bits

struct Params { base: u32, groups: u32, count: u32, width: u32, start: u32, x_width: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;           // (rows, x_width)
@group(0) @binding(2) var<storage, read_write> out: array<Word>;   // (rows, width)

@compute @workgroup_size(256)
fn pad(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    var word = Word();
    if (column >= p.start && column - p.start < p.x_width) {
        word = x[row * p.x_width + column - p.start];
    }
    out[i] = word;
}
