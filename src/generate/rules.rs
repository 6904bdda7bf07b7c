//! Which tokens may come next, and which must, as a model's `generation_config.json` says.

use super::pick::Behind;
use derive_setters::Setters;
use std::collections::HashSet;

/// The most that [`TokenRules::end_decay`] multiplies by: far beyond what decides, and finite in f32.
const MOST_DECAY: f32 = 1e29;

/// Rules for the tokens of an answer, under the names of transformers' settings.
///
/// Their order is that of transformers: what is forbidden goes by the history that the model itself reads, prompt included, or, where an
/// encoder reads the prompt, the token that answers begin with and the answer.
#[derive(Clone, Debug, Default, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct TokenRules {
    /// `min_new_tokens`: no end token comes before so many others.
    pub min_new_tokens: usize,
    /// `suppress_tokens`: what never comes.
    pub suppress: Vec<u32>,
    /// `begin_suppress_tokens`: what does not come first, or, behind a first token that is forced, second.
    pub suppress_first: Vec<u32>,
    /// `bad_words_ids`: sequences that never come. One that is an end token alone does not count.
    pub bad_words: Vec<Vec<u32>>,
    /// `no_repeat_ngram_size`: no sequence of so many tokens comes twice; 0: any may.
    pub no_repeat_ngram: usize,
    /// `encoder_no_repeat_ngram_size`: no sequence of so many tokens of the prompt comes in the answer; 0: any may.
    pub no_prompt_ngram: usize,
    /// `encoder_repetition_penalty`: logits of the prompt's tokens are multiplied by this if positive and divided by it if negative.
    pub prompt_penalty: Option<f32>,
    /// `sequence_bias`: what is added to the logit of a sequence's last token where the others come before it.
    pub biases: Vec<(Vec<u32>, f32)>,
    /// `exponential_decay_length_penalty`: behind so many tokens of an answer, |logit| · (factorᵏ − 1) is added to the logits of end tokens,
    /// k counting the tokens since then.
    pub end_decay: Option<(usize, f32)>,
    /// `forced_bos_token_id`: the first token of an answer to what an encoder read, or to a prompt of one token.
    pub forced_first: Option<u32>,
    /// `forced_eos_token_id`: one of these is the last token of the longest answer.
    pub forced_last: Vec<u32>,
}

/// What the rules say of one token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Only these.
    Only(Vec<u32>),
    /// All but these.
    AllBut(HashSet<u32>),
}

impl TokenRules {
    /// What may come in an answer of at most `longest` tokens.
    pub(super) fn allowed(&self, row: &Behind<'_>, longest: usize, end: &[u32]) -> Allowed {
        let Behind { history, made, prompt } = *row;
        let forced_first = self.forced_first.filter(|_| history.len() == 1);
        if made + 1 == longest && !self.forced_last.is_empty() {
            return Allowed::Only(self.forced_last.clone());
        }
        if let Some(first) = forced_first {
            return Allowed::Only(vec![first]);
        }
        let mut banned: HashSet<u32> = self.suppress.iter().copied().collect();
        let begins = if self.forced_first.is_some() && history.len() == made + 1 { 1 } else { 0 };
        if made == begins {
            banned.extend(&self.suppress_first);
        }
        if made < self.min_new_tokens {
            banned.extend(end);
        }
        let ends = |word: &[u32]| matches!(word, [only] if end.contains(only));
        banned.extend(self.bad_words.iter().filter(|word| !ends(word)).filter_map(|word| last_of(word, history)));
        for (size, text) in [(self.no_repeat_ngram, history), (self.no_prompt_ngram, prompt)] {
            if size > 0 && history.len() + 1 >= size {
                let last = &history[history.len() + 1 - size..];
                let repeats = text.windows(size).filter(|gram| gram[..size - 1] == *last);
                banned.extend(repeats.map(|gram| gram[size - 1]));
            }
        }
        Allowed::AllBut(banned)
    }

    /// What is added to logits behind such a text.
    pub(super) fn biases_behind(&self, history: &[u32]) -> impl Iterator<Item = (u32, f32)> {
        self.biases.iter().filter_map(move |(word, bias)| Some((last_of(word, history)?, *bias)))
    }

    /// The factor of the logits of end tokens that are positive, behind so many tokens of an answer.
    pub(super) fn end_factor(&self, made: usize) -> Option<f32> {
        let (start, factor) = self.end_decay?;
        let since = made.checked_sub(start).filter(|since| *since > 0)?;
        Some(factor.powf(since as f32).min(MOST_DECAY))
    }
}

/// The last token of a sequence whose others end a text that is at least as long as it, as transformers counts.
fn last_of(word: &[u32], history: &[u32]) -> Option<u32> {
    match word {
        [only] => Some(*only),
        [before @ .., last] => (history.len() >= word.len() && history.ends_with(before)).then_some(*last),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(rules: &TokenRules, history: &[u32], made: usize) -> Vec<u32> {
        match rules.allowed(&Behind { history, made, prompt: &[1, 4, 9] }, 10, &[2]) {
            Allowed::AllBut(banned) => {
                let mut banned: Vec<u32> = banned.into_iter().collect();
                banned.sort_unstable();
                banned
            }
            Allowed::Only(_) => panic!("forced"),
        }
    }

    #[test]
    fn tokens_are_banned_where_they_should_be() {
        let rules =
            TokenRules { min_new_tokens: 2, suppress: vec![7], suppress_first: vec![8], ..TokenRules::default() };
        assert_eq!(banned(&rules, &[5, 6], 0), [2, 7, 8]);
        assert_eq!(banned(&rules, &[5, 6, 1], 1), [2, 7]);
        assert_eq!(banned(&rules, &[5, 6, 1, 1], 2), [7]);
        let words = TokenRules { bad_words: vec![vec![2], vec![9], vec![4, 5, 6]], ..TokenRules::default() };
        assert_eq!(banned(&words, &[1, 4, 5], 0), [6, 9]);
        assert_eq!(banned(&words, &[1, 4, 4], 0), [9]);
        assert_eq!(
            banned(&words, &[4, 5], 0),
            [9],
            "a history shorter than the word does not count, as in transformers"
        );
        let grams = TokenRules { no_repeat_ngram: 2, ..TokenRules::default() };
        assert_eq!(banned(&grams, &[1, 3, 1, 4, 1], 3), [3, 4]);
        assert_eq!(banned(&TokenRules { no_repeat_ngram: 1, ..grams.clone() }, &[1, 3], 0), [1, 3]);
        assert!(banned(&TokenRules { no_repeat_ngram: 3, ..grams }, &[1], 0).is_empty());
        let grams = TokenRules { no_prompt_ngram: 2, ..TokenRules::default() };
        assert_eq!(
            (banned(&grams, &[0, 4], 1), banned(&grams, &[0, 9], 1)),
            (vec![9], Vec::new()),
            "those of the prompt"
        );
    }

    #[test]
    fn biases_and_end_factors_follow_the_text() {
        let biases = vec![(vec![7], 1.5), (vec![3, 4], -2.0), (vec![1, 3, 4], 0.5)];
        let rules = TokenRules { biases, end_decay: Some((2, 1.5)), ..TokenRules::default() };
        assert_eq!(rules.biases_behind(&[1, 3]).collect::<Vec<_>>(), [(7, 1.5), (4, -2.0)]);
        assert_eq!(rules.biases_behind(&[0, 1, 3]).collect::<Vec<_>>(), [(7, 1.5), (4, -2.0), (4, 0.5)]);
        assert_eq!([0, 2, 3, 5].map(|made| rules.end_factor(made)), [None, None, Some(1.5), Some(1.5 * 1.5 * 1.5)]);
        assert_eq!(rules.end_factor(100_000), Some(MOST_DECAY));
    }

    #[test]
    fn tokens_are_forced_at_the_beginning_and_the_end() {
        let rules = TokenRules {
            forced_first: Some(3),
            forced_last: vec![2],
            suppress_first: vec![8],
            ..TokenRules::default()
        };
        let allowed = |history, made, longest| rules.allowed(&Behind { history, made, prompt: &[] }, longest, &[2]);
        assert_eq!(allowed(&[0], 0, 10), Allowed::Only(vec![3]));
        assert_eq!(allowed(&[0, 3, 4], 2, 3), Allowed::Only(vec![2]));
        assert_eq!(banned(&rules, &[0, 3], 1), [8], "the first that is free");
        assert_eq!(banned(&rules, &[5, 6], 0), [8], "a prompt of several tokens is a beginning already");
    }
}
