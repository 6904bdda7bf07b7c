// window: a window of columns of one matrix becomes a window of columns of another.
//
//   out[out_start + r·out_pitch + c] = x[x_start + r·x_pitch + c],  c < width
//
// in        x (rows, x_pitch) words
// out       out (rows, out_pitch) words; only the window is written
// grid      one invocation for each word of the window
// needs     a snippet that names Word
// numerics  a copy of bits

struct Params {
    base: u32, groups: u32,
    count: u32, width: u32,           // words of the window, words of its rows
    x_start: u32, x_pitch: u32,
    out_start: u32, out_pitch: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;           // (rows, x_pitch)
@group(0) @binding(2) var<storage, read_write> out: array<Word>;   // (rows, out_pitch)

@compute @workgroup_size(256)
fn window(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    out[p.out_start + row * p.out_pitch + column] = x[p.x_start + row * p.x_pitch + column];
}
