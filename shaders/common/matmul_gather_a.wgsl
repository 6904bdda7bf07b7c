// matmul_gather_a: row i of operand A as it lies in memory is row lines[i] of another matrix.
//
// constants  LINES_BINDING: the binding of the lines

const A_GATHERED = true;
const B_GATHERED = false;

@group(0) @binding(LINES_BINDING) var<storage, read> lines: array<u32>;

// Tiles ask for rows behind the last one, and do not use them.
fn a_line(row: u32, rows: u32) -> u32 { return lines[select(0u, row, row < rows)]; }

fn b_line(row: u32, rows: u32) -> u32 { return row; }
