// table_bf16: rows of bf16, two in a word, one at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = u32;
alias Element = f32;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    let word = table[i / 2u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (i & 1u) == 1u));
}
