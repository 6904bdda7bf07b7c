// random: Threefry-2x32 with 20 rounds: two random words from a key and a counter, the same on every machine.
//
// paper     Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3"

fn threefry_rounds(x: vec2u, rotations: vec4u) -> vec2u {
    var s = x;
    for (var i = 0u; i < 4u; i++) {
        s.x += s.y;
        s.y = ((s.y << rotations[i]) | (s.y >> (32u - rotations[i]))) ^ s.x;
    }
    return s;
}

fn threefry(key: vec2u, counter: vec2u) -> vec2u {
    let third = key.x ^ key.y ^ 0x1bd11bdau;
    let even = vec4u(13u, 15u, 26u, 6u);
    let odd = vec4u(17u, 29u, 16u, 24u);
    var s = counter + key;
    s = threefry_rounds(s, even) + vec2u(key.y, third + 1u);
    s = threefry_rounds(s, odd) + vec2u(third, key.x + 2u);
    s = threefry_rounds(s, even) + vec2u(key.x, key.y + 3u);
    s = threefry_rounds(s, odd) + vec2u(key.y, third + 4u);
    return threefry_rounds(s, even) + vec2u(third, key.x + 5u);
}
