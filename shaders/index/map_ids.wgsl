// map_ids: ids shifted by a number, except one, which then names no row.
//
//   out[i] = NONE if ids[i] = omitted, else ids[i] + shift + i / row * step
//
// in        ids (count) u32
// out       out (count) u32
// grid      one invocation an id

struct Params { base: u32, groups: u32, count: u32, shift: u32, omitted: u32, step: u32, row: u32 }

const NONE: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;         // (count)
@group(0) @binding(2) var<storage, read_write> out: array<u32>;   // (count)

@compute @workgroup_size(64)
fn map_ids(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    out[i] = select(ids[i] + p.shift + i / p.row * p.step, NONE, ids[i] == p.omitted);
}
