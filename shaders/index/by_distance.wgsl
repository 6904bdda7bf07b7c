// by_distance: a number for each query and key, by the distance of their positions.
//
//   out[b, i, j] = values[keys[b, j] − queries[b, i] + last / 2], the index within 0 to last
//
// in        values (last + 1) u32   queries (batch, tq) u32   keys (batch, tk) u32
// out       out (batch, tq, tk) u32
// grid      one invocation a query and key
// numerics  exact: integers

struct Params { base: u32, groups: u32, count: u32, tq: u32, tk: u32, last: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> values: array<u32>;       // (last + 1)
@group(0) @binding(2) var<storage, read> queries: array<u32>;      // (batch, tq)
@group(0) @binding(3) var<storage, read> keys: array<u32>;         // (batch, tk)
@group(0) @binding(4) var<storage, read_write> out: array<u32>;    // (batch, tq, tk)

@compute @workgroup_size(64)
fn by_distance(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let row = i / p.tk;
    let key = i - row * p.tk;
    let offset = i32(keys[row / p.tq * p.tk + key] - queries[row]);
    out[i] = values[u32(clamp(offset + i32(p.last / 2u), 0, i32(p.last)))];
}
