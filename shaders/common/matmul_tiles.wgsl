// matmul_tiles: tiles of each matrix of a batch, rows fastest, so that B is read once; then columns, then the batch. All of k is
// summed over.

// The tile of that number, of `rows` × `columns` elements; one past the last has no rows.
fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let batch = tile / across_m / across_n;
    let row = select(p.m, tile % across_m * rows, batch < p.batch);
    return Tile(batch, row, tile / across_m % across_n * columns, p.m, p.m, 0u, p.k);
}
