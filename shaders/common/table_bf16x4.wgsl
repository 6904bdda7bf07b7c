// table_bf16x4: rows of bf16, four at a time.
//
// The kernel declares the binding `table: array<Packed>`.

alias Packed = vec2u;
alias Element = vec4f;

// Element `i` of the table, counted in Elements.
fn table_at(i: u32) -> Element {
    let words = table[i];
    let low = words << vec2u(16u);
    let high = words & vec2u(0xffff0000u);
    return bitcast<vec4f>(vec4u(low.x, high.x, low.y, high.y));
}
