// matmul_tiles_sums: a product for each group of rows, summed over those rows: k runs from starts[e] to starts[e + 1] - 1, and a
// group without rows gives zeros. Tiles as in matmul_tiles.
//
// constants  STARTS_BINDING: the binding of the starts

@group(0) @binding(STARTS_BINDING) var<storage, read> starts: array<u32>;   // (groups + 1)

fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let number = tile / (across_m * across_n);
    let batch = min(number, p.batch - 1u);
    let of_matrix = in_bands(tile % (across_m * across_n), across_m, across_n);
    let row = select(p.m, of_matrix.x * rows, number < p.batch);
    let group = p.first_group + batch;
    return Tile(batch, row, of_matrix.y * columns, p.m, p.m, starts[group], starts[group + 1u]);
}
