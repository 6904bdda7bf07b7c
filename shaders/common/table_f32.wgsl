// table_f32: rows of f32, one at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = f32;
alias Element = f32;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    return table[i];
}
