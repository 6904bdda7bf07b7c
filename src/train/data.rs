//! A text as training data: tokens, a held-out part, and batches in an order that depends on a seed.

use crate::error::{Error, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::sync::Arc;

/// The label of an ignored position.
pub const IGNORED: i32 = -1;

/// The tokens of a text: those for training, and the held-out end for evaluation.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// Tokens for training.
    pub train: Arc<[u32]>,
    /// Tokens for evaluation.
    pub held_out: Arc<[u32]>,
}

impl Corpus {
    /// Splits tokens by position: the last `held_out` share of them is held out.
    ///
    /// # Errors
    /// [`Error::Input`] if the share is not below 1 or nothing is left to train on.
    pub fn new(tokens: &[u32], held_out: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&held_out) {
            let message = format!("it is {held_out}, but must be in [0, 1), for example 0.1");
            return Err(Error::input("held-out share", message));
        }
        let count = (tokens.len() as f64 * held_out).round() as usize;
        let (train, rest) = tokens.split_at(tokens.len() - count);
        if train.len() < 2 {
            let message = format!(
                "it has {} tokens, of which {} are left for training: give a longer text",
                tokens.len(),
                train.len()
            );
            return Err(Error::input("text", message));
        }
        Ok(Self { train: train.into(), held_out: rest.into() })
    }
}

/// Refuses tokens outside a model's vocabulary, as from the tokenizer of another model.
///
/// # Errors
/// [`Error::Input`] with the first such token and its index.
pub fn check_tokens(tokens: &[u32], vocabulary: usize) -> Result<()> {
    match tokens.iter().position(|&token| token as usize >= vocabulary) {
        None => Ok(()),
        Some(at) => {
            let token = tokens[at];
            let message = format!(
                "token {token} at position {at} is not among the {vocabulary} of the model's vocabulary: do model and tokenizer \
                 belong together?"
            );
            Err(Error::input("text", message))
        }
    }
}

/// Rows of tokens, with the next token of each position as its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens of a row.
    pub length: usize,
    /// `rows × length` tokens.
    pub inputs: Vec<u32>,
    /// `rows × length` next tokens; [`IGNORED`] where there is none.
    pub labels: Vec<i32>,
}

impl Batch {
    pub(super) fn with_capacity(rows: usize, length: usize) -> Self {
        let cells = rows * length;
        Self { rows, length, inputs: Vec::with_capacity(cells), labels: Vec::with_capacity(cells) }
    }

    /// Adds a row from a window of tokens; missing positions are padded and ignored.
    pub(super) fn push(&mut self, window: &[u32]) {
        for at in 0..self.length {
            self.inputs.push(window.get(at).copied().unwrap_or(0));
            self.labels.push(window.get(at + 1).map_or(IGNORED, |&token| token as i32));
        }
    }

    /// The number of positions at the ends of rows that predict nothing: padding.
    #[must_use]
    pub fn padding(&self) -> usize {
        let rows = self.labels.chunks(self.length.max(1));
        rows.map(|row| row.iter().rev().take_while(|&&label| label < 0).count()).sum()
    }

    /// The number of labels that are not ignored.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.labels.iter().filter(|&&label| label >= 0).count()
    }
}

/// The position of a run in its data, from which the same batches follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DataState {
    /// The seed of the order.
    pub seed: u64,
    /// Completed passes over the text.
    pub epoch: u64,
    /// Windows of this pass that were used.
    pub cursor: u64,
    /// A fingerprint of the text and the windows' length; 0 if unknown.
    #[serde(default)]
    pub text: u64,
}

/// Endless batches. A pass cuts the text into adjacent windows from a random offset, so that the cuts differ between passes, and returns each
/// window once, in random order. A batch may span two passes.
#[derive(Clone, Debug)]
pub struct Batches {
    tokens: Arc<[u32]>,
    rows: usize,
    length: usize,
    state: DataState,
    /// The offset of this pass.
    offset: usize,
    /// The windows of this pass in order.
    order: Vec<u32>,
}

impl Batches {
    /// Batches of `rows` windows of `length` tokens, from the beginning.
    ///
    /// # Errors
    /// [`Error::Input`] if a size is 0 or the text has no window of that length.
    pub fn new(tokens: Arc<[u32]>, rows: usize, length: usize, seed: u64) -> Result<Self> {
        Self::resume(tokens, rows, length, DataState { seed, epoch: 0, cursor: 0, text: 0 })
    }

    /// As [`Batches::new`], from the position of a run. The text and the length must be those of that run.
    ///
    /// # Errors
    /// As [`Batches::new`]; [`Error::Input`] if the position belongs to another text or length.
    pub fn resume(tokens: Arc<[u32]>, rows: usize, length: usize, state: DataState) -> Result<Self> {
        if rows == 0 || length == 0 {
            return Err(Error::input(
                "batch",
                format!("{rows} rows of {length} tokens are empty: both must be 1 or more"),
            ));
        }
        if tokens.len() <= length {
            let message = format!(
                "it has {} tokens, but windows of {length} need {} or more: give a longer text or a shorter context",
                tokens.len(),
                length + 1
            );
            return Err(Error::input("training text", message));
        }
        let text = fingerprint(tokens.iter().copied(), length);
        if ![0, text].contains(&state.text) {
            let message = "belongs to another text, tokenizer or context length: resume with those of the run, or start a new run \
                           from its weights (--from)";
            return Err(Error::input("data position", message));
        }
        let state = DataState { text, ..state };
        let mut batches = Self { tokens, rows, length, state, offset: 0, order: Vec::new() };
        batches.lay_out();
        if state.cursor > batches.order.len() as u64 {
            let message = format!(
                "it is window {} of a pass, but this text has {} windows: resume with the text and context length of the run",
                state.cursor,
                batches.order.len()
            );
            return Err(Error::input("data position", message));
        }
        Ok(batches)
    }

    /// Rows of a batch, and tokens of a row.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.rows, self.length)
    }

    /// The position of the next batch.
    #[must_use]
    pub fn state(&self) -> DataState {
        self.state
    }

    /// The most windows of a pass.
    #[must_use]
    pub fn windows(&self) -> usize {
        (self.tokens.len() - 1) / self.length
    }

    /// Lays out the pass of the state, which depends only on the seed, the pass and the sizes.
    fn lay_out(&mut self) {
        let mut random = ChaCha8Rng::seed_from_u64(self.state.seed);
        random.set_stream(self.state.epoch);
        // A window of n tokens and the label of its last one.
        let spare = self.tokens.len() - 1 - self.length;
        self.offset = below(&mut random, spare.min(self.length - 1) as u64 + 1) as usize;
        let count = (self.tokens.len() - 1 - self.offset) / self.length;
        self.order = (0..count as u32).collect();
        for last in (1..count).rev() {
            let other = below(&mut random, last as u64 + 1) as usize;
            self.order.swap(last, other);
        }
    }

    /// The next batch.
    pub fn next_batch(&mut self) -> Batch {
        let mut batch = Batch::with_capacity(self.rows, self.length);
        while batch.inputs.len() < self.rows * self.length {
            let Some(&window) = self.order.get(self.state.cursor as usize) else {
                (self.state.epoch, self.state.cursor) = (self.state.epoch + 1, 0);
                self.lay_out();
                continue;
            };
            let start = self.offset + window as usize * self.length;
            batch.push(&self.tokens[start..=start + self.length]);
            self.state.cursor += 1;
        }
        batch
    }
}

/// A fingerprint of a text: FNV-1a over the tokens and the windows' length. Never 0.
pub(crate) fn fingerprint(tokens: impl Iterator<Item = u32>, length: usize) -> u64 {
    let words = tokens.map(u64::from).chain([length as u64]);
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3));
    hash.max(1)
}

/// A uniform number below `bound` (at least 1). Implemented here, so that the order of the data does not depend on the version of a library.
pub(crate) fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    // The low part of the product identifies the few draws that would be biased (arXiv 1805.10941).
    let reject_below = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(random.next_u64()) * u128::from(bound);
        if product as u64 >= reject_below {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(length: usize) -> Arc<[u32]> {
        (0..length as u32).collect()
    }

    #[test]
    fn tokens_that_the_model_does_not_know_are_named() {
        assert!(check_tokens(&[0, 4, 2], 5).is_ok() && check_tokens(&[], 1).is_ok());
        let message = check_tokens(&[0, 4, 5, 6], 5).unwrap_err().to_string();
        assert!(message.starts_with("text: token 5 at position 2 is not among the 5"), "{message}");
    }

    #[test]
    fn the_end_is_held_out() {
        let corpus = Corpus::new(&text(10), 0.2).unwrap();
        assert_eq!((&*corpus.train, &*corpus.held_out), (&[0, 1, 2, 3, 4, 5, 6, 7][..], &[8, 9][..]));
        assert!(Corpus::new(&text(10), 0.0).unwrap().held_out.is_empty());
        assert!(Corpus::new(&text(10), 1.0).unwrap_err().to_string().contains("in [0, 1)"));
        assert!(Corpus::new(&text(10), f64::NAN).is_err());
        assert!(Corpus::new(&text(3), 0.9).unwrap_err().to_string().contains("longer"));
        assert!(Corpus::new(&[], 0.5).is_err());
    }

    #[test]
    fn labels_are_the_tokens_that_follow() {
        let mut batches = Batches::new(text(100), 3, 7, 1).unwrap();
        for _ in 0..50 {
            let batch = batches.next_batch();
            assert_eq!((batch.inputs.len(), batch.counted()), (21, 21));
            assert!(batch.inputs.iter().zip(&batch.labels).all(|(&i, &l)| l == i as i32 + 1));
            assert!(batch.inputs.chunks(7).all(|row| row.windows(2).all(|w| w[1] == w[0] + 1)));
        }
    }

    #[test]
    fn a_pass_gives_every_window_once_and_passes_differ() {
        let mut batches = Batches::new(text(1000), 1, 10, 42).unwrap();
        let mut passes: Vec<Vec<u32>> = vec![Vec::new(); 3];
        loop {
            let first = batches.next_batch().inputs[0];
            let epoch = batches.state().epoch as usize;
            match passes.get_mut(epoch) {
                Some(pass) => pass.push(first),
                None => break,
            }
        }
        for pass in &passes {
            let mut sorted = pass.clone();
            sorted.sort_unstable();
            assert!(sorted.windows(2).all(|w| w[1] == w[0] + 10), "windows lie side by side");
            assert!(pass.len() >= 98 && sorted[0] < 10);
            assert_ne!(*pass, sorted, "not shuffled");
        }
        assert_ne!(passes[0], passes[1]);
    }

    #[test]
    fn the_order_of_a_seed_never_changes() {
        let mut batches = Batches::new(text(64), 4, 8, 7).unwrap();
        let starts: Vec<u32> =
            (0..3).flat_map(|_| batches.next_batch().inputs.chunks(8).map(|r| r[0]).collect::<Vec<_>>()).collect();
        // Runs that were saved by an older version must go on as they were.
        assert_eq!(starts, ORDER_OF_SEED_7);
        let other = Batches::new(text(64), 4, 8, 8).unwrap().next_batch();
        assert_ne!(other, Batches::new(text(64), 4, 8, 7).unwrap().next_batch());
    }

    const ORDER_OF_SEED_7: [u32; 12] = [41, 1, 49, 17, 25, 33, 9, 31, 47, 15, 55, 23];

    #[test]
    fn the_smallest_text_is_enough() {
        let mut batches = Batches::new(text(5), 3, 4, 0).unwrap();
        assert_eq!(batches.windows(), 1);
        let batch = batches.next_batch();
        assert_eq!(batch.inputs, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
        assert_eq!((batches.state().epoch, batches.state().cursor), (2, 1));
        let error_of = |tokens, rows, length| Batches::new(text(tokens), rows, length, 0).unwrap_err().to_string();
        assert!(error_of(4, 1, 4).contains("need 5 or more"));
        assert!(error_of(0, 1, 4).contains("has 0 tokens"));
        assert!(error_of(9, 0, 4).contains("0 rows"));
        assert!(error_of(9, 1, 0).contains("0 tokens are empty"));
    }

    #[test]
    fn a_position_of_another_text_is_refused() {
        let state = DataState { seed: 1, epoch: 0, cursor: 50, text: 0 };
        let message = Batches::resume(text(20), 1, 4, state).unwrap_err().to_string();
        assert!(message.contains("window 50"), "{message}");
        let state = Batches::new(text(20), 1, 4, 1).unwrap().state();
        assert!(Batches::resume(text(20), 3, 4, state).is_ok());
        let other: Arc<[u32]> = (1..21).collect();
        for (tokens, length) in [(text(21), 4), (other, 4), (text(20), 3)] {
            let message = Batches::resume(tokens, 1, length, state).unwrap_err().to_string();
            assert!(message.contains("another text, tokenizer or context length"), "{message}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_resumed_run_sees_the_same_batches(
            tokens in 2usize..300, length in 1usize..20, rows in 1usize..6, seed in any::<u64>(), before in 0usize..60,
        ) {
            prop_assume!(tokens > length);
            let mut run = Batches::new(text(tokens), rows, length, seed).unwrap();
            for _ in 0..before {
                run.next_batch();
            }
            let saved = serde_json::to_string(&run.state()).unwrap();
            let state = serde_json::from_str(&saved).unwrap();
            let mut resumed = Batches::resume(text(tokens), rows, length, state).unwrap();
            for _ in 0..20 {
                prop_assert_eq!(run.next_batch(), resumed.next_batch());
            }
        }

        #[test]
        fn numbers_below_a_bound_are(seed in any::<u64>(), bound in 1u64..) {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            prop_assert!((0..10).all(|_| below(&mut random, bound) < bound));
        }
    }
}
