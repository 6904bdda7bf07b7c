// reorder_beams: each beam of a group goes on from the state of another beam of the group, in place.
//
//   state[g, k, s] ← state[g, parents[g, k], s]   for s < used[g, 0]
//
// in        parents (G, BEAMS) u32, less than BEAMS   used (G, BEAMS) u32: positions in use
// in, out   state (G, BEAMS, S, W), words of any type, in place, from the word `first` on
// grid      one invocation for a word of a group's first beam
// needs     the constant BEAMS
// numerics  exact; an invocation reads its word of all beams before it writes one

struct Params { base: u32, groups: u32, count: u32, positions: u32, width: u32, first: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parents: array<u32>;        // (G, BEAMS)
@group(0) @binding(2) var<storage, read> used: array<u32>;           // (G, BEAMS)
@group(0) @binding(3) var<storage, read_write> state: array<u32>;    // (G, BEAMS, S, W)

@compute @workgroup_size(64)
fn reorder_beams(
    @builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32,
) {
    let workgroup = p.base + w.x + w.y * n.x;
    if (workgroup >= p.groups) { return; }
    let index = workgroup * 64u + lane;
    if (index >= p.count) { return; }
    let beam = p.positions * p.width;
    let group = index / beam;
    let word = index % beam;
    let row = group * BEAMS;
    if (word / p.width >= used[row]) { return; }
    var words: array<u32, BEAMS>;
    for (var k = 0u; k < BEAMS; k++) {
        words[k] = state[p.first + (row + min(parents[row + k], BEAMS - 1u)) * beam + word];
    }
    for (var k = 0u; k < BEAMS; k++) {
        state[p.first + (row + k) * beam + word] = words[k];
    }
}
