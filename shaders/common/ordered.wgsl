// ordered: the order of floats as that of unsigned keys.
//
// use       ordered(bits): the key of a float, given as its bits; both zeros are one key

fn ordered(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
