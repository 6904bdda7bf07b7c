// matmul_tiles_splits: tiles of one matrix for each of p.batch stretches of k, whole blocks of 32 of about equal number. In bands of columns
// as in matmul_tiles.

fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let split = tile / (across_m * across_n);
    let of_matrix = in_bands(tile % (across_m * across_n), across_m, across_n);
    let depth = ((p.k + 31u) / 32u + p.batch - 1u) / p.batch * 32u;
    let first = min(split * depth, p.k);
    return Tile(split, of_matrix.x * rows, of_matrix.y * columns, p.m, p.m, first, min(first + depth, p.k));
}
