// table_blocks: rows of quantised blocks, four weights at a time. A row is the quants of its blocks, then their scales.
//
// The kernel declares the binding `table: array<Packed>`.
//
// needs  weights4, QUANT_WORDS and WORD_WEIGHTS (weight_q*)

alias Packed = u32;
alias Element = vec4f;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    let blocks = p.width / 8u;
    let first = i / p.width * blocks * (QUANT_WORDS + 1u);
    let column = i % p.width * 4u;
    return weights4(table[first + column / WORD_WEIGHTS], column, table[first + blocks * QUANT_WORDS + column / 32u]);
}
