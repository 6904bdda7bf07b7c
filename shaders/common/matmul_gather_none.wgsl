// matmul_gather_none: rows of both operands lie where their numbers say.

const A_GATHERED = false;
const B_GATHERED = false;

fn a_line(row: u32, rows: u32) -> u32 { return row; }

fn b_line(row: u32, rows: u32) -> u32 { return row; }
