// table_f32x4: rows of f32, four at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = vec4f;
alias Element = vec4f;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    return table[i];
}
