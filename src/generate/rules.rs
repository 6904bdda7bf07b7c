//! Which tokens may come next, and which must, as a model's `generation_config.json` says.

use std::collections::HashSet;

/// Rules for the tokens of an answer, under the names of transformers' settings.
///
/// Their order is that of transformers: what is forbidden goes by the history that the model itself reads, prompt included, or, where an
/// encoder reads the prompt, the token that answers begin with and the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// What may come behind `history`, whose last `made` tokens are the answer so far, of at most `longest`.
    pub(super) fn allowed(&self, history: &[u32], made: usize, longest: usize, end: &[u32]) -> Allowed {
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
        banned.extend(self.bad_words.iter().filter_map(|word| match word.as_slice() {
            [only] if end.contains(only) => None,
            [only] => Some(*only),
            [before @ .., last] => (history.len() >= word.len() && history.ends_with(before)).then_some(*last),
            [] => None,
        }));
        let size = self.no_repeat_ngram;
        if size > 0 && history.len() + 1 >= size {
            let last = &history[history.len() + 1 - size..];
            let repeats = history.windows(size).filter(|gram| gram[..size - 1] == *last);
            banned.extend(repeats.map(|gram| gram[size - 1]));
        }
        Allowed::AllBut(banned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banned(rules: &TokenRules, history: &[u32], made: usize) -> Vec<u32> {
        match rules.allowed(history, made, 10, &[2]) {
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
    }

    #[test]
    fn tokens_are_forced_at_the_beginning_and_the_end() {
        let rules = TokenRules {
            forced_first: Some(3),
            forced_last: vec![2],
            suppress_first: vec![8],
            ..TokenRules::default()
        };
        assert_eq!(rules.allowed(&[0], 0, 10, &[2]), Allowed::Only(vec![3]));
        assert_eq!(rules.allowed(&[0, 3, 4], 2, 3, &[2]), Allowed::Only(vec![2]));
        assert_eq!(banned(&rules, &[0, 3], 1), [8], "the first that is free");
        assert_eq!(banned(&rules, &[5, 6], 0), [8], "a prompt of several tokens is a beginning already");
    }
}
