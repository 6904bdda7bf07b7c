// fill: zeros.
//
//   out[i] = 0
//
// out       out (count) words
// grid      one workgroup for 1024 words
// needs     a snippet that names Word
// numerics  exact

struct Params { base: u32, groups: u32, count: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<Word>;   // (count)

@compute @workgroup_size(64)
fn fill(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let end = min(group * 1024u + 1024u, p.count);
    for (var i = group * 1024u + lane; i < end; i += 64u) {
        out[i] = Word();
    }
}
