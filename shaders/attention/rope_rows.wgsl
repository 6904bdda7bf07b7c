// rope_rows: the row of a table of rotary positions for each token, where the table has rows for short texts and, behind them, for long ones.
//
//   rows[b, t] = positions[b, t] + (trained if the text of the token has more than trained tokens, else 0)
//
// in        positions (B, T) u32   lengths (B) u32, tokens of each row; or, where DOCUMENTS, ranges (B, T, 2) u32, the first token of each
//           token's text and one past the last
// out       rows (B, T) u32
// grid      one invocation for a token
// numerics  integers

struct Params { base: u32, groups: u32, count: u32, tokens: u32, trained: u32 }

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> positions: array<u32>;        // (B, T)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;          // (B) or (B, T, 2)
@group(0) @binding(3) var<storage, read_write> rows: array<u32>;       // (B, T)

@compute @workgroup_size(64)
fn rope_rows(@builtin(workgroup_id) w: vec3u, @builtin(num_workgroups) n: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = p.base + w.x + w.y * n.x;
    if (group >= p.groups) { return; }
    let index = group * 64u + lane;
    if (index >= p.count) { return; }
    var length = 0u;
    if (DOCUMENTS) {
        length = lengths[2u * index + 1u] - lengths[2u * index];
    } else {
        length = lengths[index / p.tokens];
    }
    rows[index] = positions[index] + select(0u, p.trained, length > p.trained);
}
