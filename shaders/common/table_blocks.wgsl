// table_blocks: rows of quantised blocks, four weights at a time.
//
// The kernel declares the binding `table: array<Packed>`.
//
// needs  weights4 and WORD_WEIGHTS (weight_*, weights_*)

alias Packed = u32;
alias Element = vec4f;

@group(0) @binding(4) var<storage, read> scales: array<u32>;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    return weights4(table[i * 4u / WORD_WEIGHTS], i * 4u);
}
