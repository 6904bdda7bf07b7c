// matmul_tiles: tiles of each matrix of a batch, in bands of columns; with bands of one, rows fastest, so that B is read once. All
// of k is summed over.

// The tile of that number, of `rows` × `columns` elements; one past the last has no rows.
fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let batch = tile / (across_m * across_n);
    let of_matrix = in_bands(tile % (across_m * across_n), across_m, across_n);
    let row = select(p.m, of_matrix.x * rows, batch < p.batch);
    return Tile(batch, row, of_matrix.y * columns, p.m, p.m, 0u, p.k);
}
