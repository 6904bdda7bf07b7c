// segment_counts: the number of keys of each row, from the starts of the segments.
//
//   counts[r] = starts[r + 1] − starts[r],  0 ≤ r < rows
//
// in        starts (rows + 1) u32, ascending
// out       counts (rows) f32
// grid      one invocation for each r
// numerics  exact below 2^24

struct Params { base: u32, groups: u32, rows: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> starts: array<u32>;         // (rows + 1)
@group(0) @binding(2) var<storage, read_write> counts: array<f32>;   // (rows)

@compute @workgroup_size(64)
fn segment_counts(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let row = group * 64u + lane;
    if (row < p.rows) { counts[row] = f32(starts[row + 1u] - starts[row]); }
}
