//! Drafts of greedy answers out of their own texts.

/// The most tokens of an ending that is looked up, and the fewest.
const LONGEST: usize = 4;
const SHORTEST: usize = 2;

/// Up to `most` tokens that followed the last earlier place in `text` where it went as it ends now: as many tokens alike as can be found, up to 4
/// and at least 2. Saxena, "Prompt Lookup Decoding", 2023.
pub(super) fn draft(text: &[u32], most: usize) -> &[u32] {
    for count in (SHORTEST..=LONGEST.min(text.len().saturating_sub(1))).rev() {
        let (before, ending) = (&text[..text.len() - 1], &text[text.len() - count..]);
        if let Some(at) = before.windows(count).rposition(|window| window == ending) {
            let begin = at + count;
            return &text[begin..text.len().min(begin + most)];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_goes_on_as_it_did_the_last_time() {
        assert_eq!(draft(&[1, 2, 3, 4, 9, 2, 3, 5, 6, 7, 2, 3], 2), [5, 6]);
        assert_eq!(draft(&[1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 2, 3, 4], 9), [9, 1, 2, 3, 5, 7, 2, 3, 4], "three alike win");
        assert_eq!(draft(&[7, 7, 7], 4), [7], "up to the end");
        assert!(draft(&[1, 2, 3], 4).is_empty() && draft(&[1], 4).is_empty() && draft(&[], 4).is_empty());
    }
}
