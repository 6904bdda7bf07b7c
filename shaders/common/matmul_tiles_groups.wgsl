// matmul_tiles_groups: tiles of groups of rows, each group with a matrix B of its own: the rows of group e are starts[e] to
// starts[e + 1] - 1. A tile never crosses from one group to the next. Rows behind the last group become zeros.
//
// grid       as many tiles as any distribution of the rows could need; those past the last have no rows and sum over nothing
// constants  STARTS_BINDING: the binding of the starts; TAIL: the groups at hand are the last ones

@group(0) @binding(STARTS_BINDING) var<storage, read> starts: array<u32>;   // (groups + 1)

fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let column = tile % across_n * columns;
    var before = tile / across_n;   // tiles of rows in front of this one, counted from the group at hand
    var start = starts[p.first_group];
    for (var group = 0u; group < p.batch; group++) {
        let end = starts[p.first_group + group + 1u];
        let tiles = (end - start + rows - 1u) / rows;
        if (before < tiles) { return Tile(group, start + before * rows, column, end, end, 0u, p.k); }
        before -= tiles;
        start = end;
    }
    let row = select(p.m, min(start + before * rows, p.m), TAIL);
    return Tile(0u, row, column, p.m, p.m, 0u, 0u);
}
