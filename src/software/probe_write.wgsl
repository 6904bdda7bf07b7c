// probe_write: what probe_textures reads.
//
// bindings  1: words
// grid      a workgroup for 64 of the words

@group(0) @binding(1) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn probe_write(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = w.x * 64u + lane;
    words[i] = (i + 1u) * 2654435761u;
}
