// table_f16x4: rows of f16, four at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = vec2u;
alias Element = vec4f;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    let words = table[i];
    return vec4f(unpack2x16float(words.x), unpack2x16float(words.y));
}
