// matmul_slices: sums over the slices of a workgroup: an invocation has PIECES sums over its slice along k, and its lane's columns are
// those of the same lane in the other slices.
//
// constants  PIECES: 1, 2, 4, or a multiple of 4, at most SLICES; LANES and SLICES: a workgroup has LANES × SLICES invocations
// needs      16 LANES × SLICES bytes of workgroup memory for each of up to 4 pieces

const HELD = min(PIECES, 4u);

var<workgroup> partial: array<vec4f, HELD * LANES * SLICES>;

// Piece `index / LANES` of lane `index % LANES`, summed over the slices in order, if there is such a piece; to be called by all
// invocations. Several pieces go through memory at a time, since each barrier is another part of the code for drivers on the CPU.
fn sum_of_slices(index: u32, lane: u32, slice: u32, pieces: ptr<function, array<vec4f, PIECES>>) -> vec4f {
    let piece = index / LANES;
    var sum = vec4f();
    for (var first = 0u; first < PIECES; first += HELD) {
        if (first > 0u) { workgroupBarrier(); }
        for (var h = 0u; h < HELD; h++) { partial[(h * SLICES + slice) * LANES + lane] = (*pieces)[first + h]; }
        workgroupBarrier();
        if (piece / HELD == first / HELD) {
            for (var i = 0u; i < SLICES; i++) { sum += partial[(piece % HELD * SLICES + i) * LANES + index % LANES]; }
        }
    }
    return sum;
}
