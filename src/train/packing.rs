//! Texts of unequal lengths in rows of one length: several in a row, each of them whole.

use super::data::{DataState, below};
use crate::error::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::collections::BTreeSet;

/// Texts of which the longest are placed first: all of a pass would put the longest beside each other in every pass.
const SORTED: usize = 1024;

/// The rows of `capacity` that texts of these lengths are put in: each row as the numbers of its texts, in the order in which rows begin. Of
/// each 1,024 texts of the order given by `texts` the longest come first, and each goes to the fullest row that has room. A text that is
/// longer than a row has none.
#[must_use]
pub fn pack(lengths: &[usize], texts: &[u32], capacity: usize) -> Vec<Vec<u32>> {
    let length = |text: u32| lengths.get(text as usize).copied().unwrap_or(usize::MAX);
    let mut rows: Vec<Vec<u32>> = Vec::new();
    // Rows with room, by how much of it.
    let mut open = BTreeSet::new();
    for chunk in texts.chunks(SORTED) {
        let mut chunk: Vec<u32> = chunk.iter().copied().filter(|&text| length(text) <= capacity).collect();
        // Texts of one length stay in their order.
        chunk.sort_by_key(|&text| std::cmp::Reverse(length(text)));
        for text in chunk {
            let needed = length(text);
            let found = open.range((needed, 0)..).next().copied();
            let (room, row) = found.unwrap_or((capacity, rows.len()));
            open.remove(&(room, row));
            match rows.get_mut(row) {
                Some(row) => row.push(text),
                None => rows.push(vec![text]),
            }
            if room > needed {
                open.insert((room - needed, row));
            }
        }
    }
    rows
}

/// The length of a batch whose longest text has so many tokens: the next of 16, 20, 24, 28, 32, 40, 48, 56, 64, …, of which few programs
/// serve all lengths: four for each doubling.
#[must_use]
pub fn bucket(length: usize) -> usize {
    let length = length.max(16);
    let step = length.checked_next_power_of_two().map(|end| end / 8);
    step.and_then(|step| length.checked_next_multiple_of(step)).unwrap_or(length)
}

/// Endless rows of packed texts. A pass has each text once; a seed decides which texts share a row, and the order of rows.
#[derive(Clone, Debug)]
pub struct PackedRows {
    lengths: Vec<usize>,
    capacity: usize,
    state: DataState,
    /// The rows of this pass in order.
    rows: Vec<Vec<u32>>,
}

impl PackedRows {
    /// Rows of `capacity` from a position in the data; [`DataState::cursor`] counts the rows of a pass.
    ///
    /// # Errors
    /// [`Error::Input`] if no text fits a row, there are more than 2³² texts, or the position belongs to other texts or rows.
    pub fn resume(lengths: Vec<usize>, capacity: usize, state: DataState) -> Result<Self> {
        if u32::try_from(lengths.len()).is_err() {
            return Err(Error::input("texts", format!("{} are more than a run can count", lengths.len())));
        }
        if !lengths.iter().any(|&length| length <= capacity) {
            let message =
                format!("none of the {} fits a row of {capacity} tokens: give a longer context", lengths.len());
            return Err(Error::input("texts", message));
        }
        let mut packed = Self { lengths, capacity, state, rows: Vec::new() };
        packed.lay_out();
        if state.cursor > packed.rows.len() as u64 {
            let message = format!(
                "it is row {} of a pass, but these texts fill {} rows: resume with the texts and context length of the run",
                state.cursor,
                packed.rows.len()
            );
            return Err(Error::input("data position", message));
        }
        Ok(packed)
    }

    /// The position of the next row.
    #[must_use]
    pub fn state(&self) -> DataState {
        self.state
    }

    /// Lays out the pass of the state, which depends only on the seed, the pass and the lengths.
    fn lay_out(&mut self) {
        let mut random = random_of_pass(&self.state);
        let mut texts: Vec<u32> = (0..self.lengths.len() as u32).collect();
        shuffle(&mut random, &mut texts);
        self.rows = pack(&self.lengths, &texts, self.capacity);
        shuffle(&mut random, &mut self.rows);
    }

    /// The texts of the next row, by number.
    pub fn next_row(&mut self) -> Vec<u32> {
        loop {
            if let Some(row) = self.rows.get(self.state.cursor as usize) {
                self.state.cursor += 1;
                return row.clone();
            }
            (self.state.epoch, self.state.cursor) = (self.state.epoch + 1, 0);
            self.lay_out();
        }
    }
}

/// The random numbers that lay out a pass.
pub(crate) fn random_of_pass(state: &DataState) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(state.seed);
    random.set_stream(state.epoch);
    random
}

pub(crate) fn shuffle<T>(random: &mut ChaCha8Rng, all: &mut [T]) {
    for last in (1..all.len()).rev() {
        let other = below(random, last as u64 + 1) as usize;
        all.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: DataState = DataState { seed: 3, epoch: 0, cursor: 0, text: 0 };

    /// Lengths as texts have them: few are long.
    fn lengths(count: usize) -> Vec<usize> {
        (0..count).map(|i| 2 + (i * 7919 % 97) * (i * 104_729 % 89) / 17).collect()
    }

    #[test]
    fn rows_are_nearly_full() {
        let lengths = lengths(5000);
        let texts: Vec<u32> = (0..5000).collect();
        let rows = pack(&lengths, &texts, 512);
        let all: usize = lengths.iter().sum();
        assert!(rows.len() * 512 * 98 < all * 100, "{} tokens in {} rows", all, rows.len());
    }

    #[test]
    fn few_lengths_serve_all() {
        let found: Vec<usize> = (1..=130).map(bucket).collect();
        let mut sizes = found.clone();
        sizes.dedup();
        assert_eq!(sizes, [16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160]);
        assert!(
            found
                .iter()
                .zip(1..)
                .all(|(&bucket, length)| bucket >= length && (bucket < 17 || bucket * 4 <= length * 5))
        );
        assert_eq!(bucket(usize::MAX), usize::MAX);
    }

    #[test]
    fn passes_differ_and_a_text_that_fits_no_row_is_left_out() {
        assert_eq!(pack(&[5, 9, 3, 2], &[0, 1, 2, 3], 8), [vec![0, 2], vec![3]]);
        let mut rows = PackedRows::resume(lengths(200), 512, START).unwrap();
        let passes: Vec<Vec<Vec<u32>>> = (0..2)
            .map(|_| {
                let count = rows.rows.len();
                (0..count).map(|_| rows.next_row()).collect()
            })
            .collect();
        assert_ne!(passes[0], passes[1]);
        let error = PackedRows::resume(vec![9, 10], 8, START).unwrap_err().to_string();
        assert!(error.contains("none of the 2 fits a row of 8 tokens"), "{error}");
        let state = DataState { cursor: 7, ..START };
        assert!(PackedRows::resume(vec![9, 10], 10, state).unwrap_err().to_string().contains("row 7 of a pass"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_text_has_a_place_of_its_own(
            lengths in proptest::collection::vec(1_usize..40, 1..200), seed in any::<u64>(), before in 0_usize..50,
        ) {
            let mut rows = PackedRows::resume(lengths.clone(), 40, DataState { seed, ..START }).unwrap();
            let count = rows.rows.len();
            let pass: Vec<Vec<u32>> = (0..count).map(|_| rows.next_row()).collect();
            prop_assert!(pass.iter().all(|row| row.iter().map(|&text| lengths[text as usize]).sum::<usize>() <= 40));
            let mut all: Vec<u32> = pass.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len() as u32).collect::<Vec<_>>());
            for _ in 0..before {
                rows.next_row();
            }
            let mut resumed = PackedRows::resume(lengths, 40, rows.state()).unwrap();
            prop_assert!((0..20).all(|_| rows.next_row() == resumed.next_row()));
        }
    }
}
