// probe_loops: how far the loops of one invocation get.
//
// bindings  1: iterations (2), those wanted of a loop, and of an outer loop around one of as many; then the state that each got to
// grid      2 workgroups, because drivers count all loops of an invocation together: one for the loop, one for the nest
// The state is a linear congruential generator's, so that no iteration can be left out.

@group(0) @binding(1) var<storage, read_write> iterations: array<u32>;

fn next(state: u32) -> u32 {
    return state * 1664525u + 1013904223u;
}

@compute @workgroup_size(1)
fn probe_loops(@builtin(workgroup_id) w: vec3u) {
    var state = 1u;
    let wanted = iterations[w.x];
    if (w.x == 0u) {
        for (var k = 0u; k < wanted; k++) { state = next(state); }
    } else {
        for (var k = 0u; k < wanted; k++) {
            for (var j = 0u; j < wanted; j++) { state = next(state); }
        }
    }
    iterations[w.x] = state;
}
