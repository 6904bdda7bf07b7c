// mask_rows: rows that are there, and a filling in place of the others.
//
//   out[b, t, …] = x[b, t, …]  if t < lengths[b],  else fill
//
// in        x (batch, times, width) words   lengths (batch) u32
// out       out (batch, times, width) words
// grid      one invocation a word
// numerics  exact: words are copied

struct Params { base: u32, groups: u32, count: u32, width: u32, times: u32, fill: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(64)
fn mask_rows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.width;
    let there = row % p.times < lengths[row / p.times];
    out[i] = select(p.fill, x[i], there);
}
