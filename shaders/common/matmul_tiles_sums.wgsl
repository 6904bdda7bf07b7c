// matmul_tiles_sums: a product for each group of rows, summed over those rows: k runs from starts[e] to starts[e + 1] - 1, and a
// group without rows gives zeros. Tiles as in matmul_tiles.
//
// constants  STARTS_BINDING: the binding of the starts

@group(0) @binding(STARTS_BINDING) var<storage, read> starts: array<u32>;   // (groups + 1)

fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let batch = min(tile / across_m / across_n, p.batch - 1u);
    let row = select(p.m, tile % across_m * rows, tile / across_m / across_n < p.batch);
    let group = p.first_group + batch;
    return Tile(batch, row, tile / across_m % across_n * columns, p.m, p.m, starts[group], starts[group + 1u]);
}
