// permute: the axes of a tensor in another order.
//
//   out[c0, c1, c2, c3, c4] = x[Σ c_k · stride_k],  stride_k the stride in x of axis k of out
//
// in        x (n) words
// out       out (n) words
// grid      one invocation for each word of out
// needs     a snippet that names Word (4 words at a time where the last axis stays the last)
// numerics  a copy of bits

struct Params {
    base: u32, groups: u32, count: u32,
    extent1: u32, extent2: u32, extent3: u32, extent4: u32,                 // of out; axis 0 follows from count
    stride0: u32, stride1: u32, stride2: u32, stride3: u32, stride4: u32,   // in x
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Word>;           // (n)
@group(0) @binding(2) var<storage, read_write> out: array<Word>;   // (n)

@compute @workgroup_size(256)
fn permute(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 256u + lane;
    if (i >= p.count) { return; }
    var rest = i;
    var source = (rest % p.extent4) * p.stride4;
    rest /= p.extent4;
    source += (rest % p.extent3) * p.stride3;
    rest /= p.extent3;
    source += (rest % p.extent2) * p.stride2;
    rest /= p.extent2;
    source += (rest % p.extent1) * p.stride1;
    rest /= p.extent1;
    out[i] = x[source + rest * p.stride0];
}
