// table_f16: rows of f16, two in a word, one at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = u32;
alias Element = f32;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    let pair = unpack2x16float(table[i / 2u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}
