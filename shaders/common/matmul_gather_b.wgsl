// matmul_gather_b: row i of operand B as it lies in memory is row lines[i] of another matrix.
//
// constants  LINES_BINDING: the binding of the lines

const A_GATHERED = false;
const B_GATHERED = true;

@group(0) @binding(LINES_BINDING) var<storage, read> lines: array<u32>;

// Tiles ask for rows behind the last one, and do not use them.
fn b_line(row: u32, rows: u32) -> u32 { return lines[select(0u, row, row < rows)]; }

fn a_line(row: u32, rows: u32) -> u32 { return row; }
