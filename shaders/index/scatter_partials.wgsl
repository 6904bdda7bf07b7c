// scatter_partials: sums of the long segments over chunks of the sorted order, so that no invocation walks far.
//
//   The sorted order is cut into chunks of `chunk` positions. A segment (all positions of one row) with more than
//   `chunk` positions is long; a chunk holds parts of at most two long segments: the one of its first position,
//   summed into partials[2j], and the one of its last position if that is another, summed into partials[2j + 1].
//
// in        x (m, width) Elements   index (m) u32   order (m) u32   starts (rows + 1) u32
// out       partials (2·chunks, width) Elements; written only where there is something to sum
// grid      one invocation for each Element of (chunks, width)
// needs     a snippet that names Element
// numerics  f32 sums in ascending order of position

struct Params { base: u32, groups: u32, count: u32, width: u32, positions: u32, rows: u32, chunk: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;                // (m, width)
@group(0) @binding(2) var<storage, read> index: array<u32>;                // (m)
@group(0) @binding(3) var<storage, read> order: array<u32>;                // (m)
@group(0) @binding(4) var<storage, read> starts: array<u32>;               // (rows + 1)
@group(0) @binding(5) var<storage, read_write> partials: array<Element>;   // (2·chunks, width)

fn position(i: u32) -> u32 {
    return min(order[i], p.positions - 1u);
}

fn sum(first: u32, end: u32, column: u32) -> Element {
    var total = Element();
    for (var i = first; i < end; i++) {
        total += x[position(i) * p.width + column];
    }
    return total;
}

fn is_long(row: u32) -> bool {
    return row < p.rows && starts[min(row, p.rows - 1u) + 1u] - starts[min(row, p.rows - 1u)] > p.chunk;
}

@compute @workgroup_size(64)
fn scatter_partials(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    if (i >= p.count) { return; }
    let chunk = i / p.width;
    let column = i - chunk * p.width;
    let low = chunk * p.chunk;
    let high = min(low + p.chunk, p.positions);
    let first = index[position(low)];
    if (is_long(first)) {
        partials[chunk * 2u * p.width + column] = sum(low, min(starts[first + 1u], high), column);
    }
    let last = index[position(high - 1u)];
    if (last != first && is_long(last)) {
        partials[(chunk * 2u + 1u) * p.width + column] = sum(starts[last], high, column);
    }
}
