// table_u32: rows of whole words, one at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = u32;
alias Element = u32;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    return table[i];
}
