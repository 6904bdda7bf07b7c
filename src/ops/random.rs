//! The counter-based random numbers of kernels, on the CPU: Threefry-2x32 with 20 rounds.
//!
//! Paper: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3".

/// Two random words from a key and a counter; `shaders/common/random.wgsl` computes the same.
#[must_use]
pub(crate) fn threefry(key: [u32; 2], counter: [u32; 2]) -> [u32; 2] {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    let keys = [key[0], key[1], key[0] ^ key[1] ^ 0x1bd1_1bda];
    let [mut a, mut b] = [counter[0].wrapping_add(key[0]), counter[1].wrapping_add(key[1])];
    for block in 0..5_usize {
        for rotation in ROTATIONS[block % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(rotation) ^ a;
        }
        a = a.wrapping_add(keys[(block + 1) % 3]);
        b = b.wrapping_add(keys[(block + 2) % 3]).wrapping_add(block as u32 + 1);
    }
    [a, b]
}

/// A standard normal number from two random words, by Box and Muller; `shaders/common/normal.wgsl` computes the same in f32.
#[must_use]
pub(crate) fn normal(words: [u32; 2]) -> f64 {
    let share = |word: u32| f64::from(word) * 2_f64.powi(-24);
    let (u, turns) = (share((words[0] >> 8) + 1), share(words[1] >> 8));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * turns).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // From the authors' test vectors.
        assert_eq!(threefry([0, 0], [0, 0]), [0x6b20_0159, 0x99ba_4efe]);
        assert_eq!(threefry([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
        assert_eq!(threefry([0x1319_8a2e, 0x0370_7344], [0x243f_6a88, 0x85a3_08d3]), [0xc492_3a9c, 0x483d_f7a0]);
    }
}
