// probe_textures: whether what a launch wrote to a buffer is read right through textures.
//
// bindings  1: vectors, 2: pairs, 3: words, all of the same tensor; 4: verdict, 1 where all was right, 2 where something was not
// grid      a workgroup for 64 of COUNT words; COUNT is a multiple of 64

@group(0) @binding(1) var<storage, read> vectors: array<vec4u>;
@group(0) @binding(2) var<storage, read> pairs: array<vec2u>;
@group(0) @binding(3) var<storage, read> words: array<u32>;
@group(0) @binding(4) var<storage, read_write> verdict: array<u32>;

fn value(i: u32) -> u32 {
    return (i + 1u) * 2654435761u;
}

fn right(i: u32) -> bool {
    let q = i / 4u;
    let h = i / 2u;
    let vector = all(vectors[q] == vec4u(value(4u * q), value(4u * q + 1u), value(4u * q + 2u), value(4u * q + 3u)));
    let pair = all(pairs[h] == vec2u(value(2u * h), value(2u * h + 1u)));
    return vector && pair && words[i] == value(i);
}

@compute @workgroup_size(64)
fn probe_textures(@builtin(workgroup_id) w: vec3u, @builtin(local_invocation_index) lane: u32) {
    let i = w.x * 64u + lane;
    // Neighbours, far apart, all the same, and with some lanes away.
    var fine = right(i) && right(i * 397u % COUNT) && right(w.x * 61u % COUNT);
    if (lane % 3u == 0u) { fine &= right((i + 4096u) % COUNT); }
    for (var k = 0u; k < 3u + lane % 5u; k++) { fine &= right((i * 5u + k * 1031u) % COUNT); }
    verdict[i] = select(2u, 1u, fine);
}
