// matmul_tiles_lengths: tiles as in matmul_tiles, of matrices whose rows are there up to a length; a row that is not there counts as
// zero, and a tile without any sums over nothing.
//
// constants  LENGTHS_BINDING: the binding of the lengths

@group(0) @binding(LENGTHS_BINDING) var<storage, read> lengths: array<u32>;   // (batch)

fn tile_at(tile: u32, rows: u32, columns: u32) -> Tile {
    let across_n = (p.n + columns - 1u) / columns;
    let across_m = (p.m + rows - 1u) / rows;
    let batch = tile / (across_m * across_n);
    let of_matrix = in_bands(tile % (across_m * across_n), across_m, across_n);
    let row = select(p.m, of_matrix.x * rows, batch < p.batch);
    let length = min(lengths[p.first_group + min(batch, p.batch - 1u)], p.m);
    return Tile(batch, row, of_matrix.y * columns, length, p.m, 0u, select(0u, p.k, row < length));
}
