// rope: rotary positions: pairs of a head's elements are rotated by an angle that grows with the position.
//
//   (a, b) → (a·cos θ − b·sin θ, b·cos θ + a·sin θ),  θ = position · frequency[i]
//   pair i is elements (i, i + half) of the 2·half that are rotated, or (2i, 2i + 1) if INTERLEAVED; the head's other elements stay
//
// in        x (rows, head_dim) Elements, a row being one head at one position   positions (rows / heads) u32
//           table (table_rows, 2·half) Elements: cos and sin alternate
// out       out (rows, head_dim) Elements
// grid      one invocation for each pair of Elements and each Element that stays
// needs     the constant INTERLEAVED; a snippet pairs1 or pairs4
// numerics  f32; a position past the table uses its last row
// paper     Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding"

struct Params {
    base: u32, groups: u32,
    rows: u32, heads: u32,
    head_dim: u32, half_rotary: u32,        // Elements of a head, and of half of those that are rotated
    table_rows: u32, direction: f32,        // −1 rotates back
    first: u32,                             // the first Element that is rotated
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<Element>;           // (rows, head_dim)
@group(0) @binding(2) var<storage, read> positions: array<u32>;       // (rows / heads)
@group(0) @binding(3) var<storage, read> table: array<Element>;       // (table_rows, 2·half_rotary)
@group(0) @binding(4) var<storage, read_write> out: array<Element>;   // (rows, head_dim)

@compute @workgroup_size(64)
fn rope(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let i = group * 64u + lane;
    let units = p.head_dim - p.half_rotary;
    let row = i / units;
    let unit = i - row * units;
    if (row >= p.rows) { return; }
    let head = row * p.head_dim;
    if (unit >= p.half_rotary) {
        let stays = unit - p.half_rotary;
        let at = head + select(stays + 2u * p.half_rotary, stays, stays < p.first);
        out[at] = x[at];
        return;
    }
    let angle = (min(positions[row / p.heads], p.table_rows - 1u) * p.half_rotary + unit) * 2u;
    let cos_sin = unzip(table[angle], table[angle + 1u]);
    let low = head + p.first + select(unit, 2u * unit, INTERLEAVED);
    let high = low + select(p.half_rotary, 1u, INTERLEAVED);
    var pair = Pairs(x[low], x[high]);
    if (INTERLEAVED) { pair = unzip(pair.first, pair.second); }
    let sine = cos_sin.second * p.direction;
    pair = Pairs(pair.first * cos_sin.first - pair.second * sine, pair.second * cos_sin.first + pair.first * sine);
    if (INTERLEAVED) { pair = zip(pair); }
    out[low] = pair.first;
    out[high] = pair.second;
}
