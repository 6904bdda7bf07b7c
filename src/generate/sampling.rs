//! Samples a token from logits, on the CPU.

use super::rules::{Allowed, TokenRules};
use crate::error::{Error, Result};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::cmp::Ordering;

/// The sampling of tokens, and the end of answers.
///
/// The order is that of Hugging Face: repetition penalty, rules, temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// The most tokens of an answer.
    pub max_new_tokens: usize,
    /// The divisor of logits. 0 is greedy: the most likely token, with ties to the lower id.
    pub temperature: f32,
    /// Sample from the `top_k` most likely tokens; 0: all.
    pub top_k: usize,
    /// Sample from the smallest set of most likely tokens with this total probability; 1: all.
    /// Holtzman et al., arXiv 1904.09751.
    pub top_p: f32,
    /// Sample from tokens with at least this share of the highest probability; 0: all.
    /// Nguyen et al., arXiv 2407.01082.
    pub min_p: f32,
    /// Logits of tokens that occurred before are divided by this if positive and multiplied by it if negative; 1: no penalty.
    /// Keskar et al., arXiv 1909.05858.
    pub repetition_penalty: f32,
    /// The same seed gives the same tokens.
    pub seed: u64,
    /// Tokens that end an answer.
    pub end: Vec<u32>,
    /// Texts that end an answer; they need a generator with [`super::Generator::with_text`].
    pub stop: Vec<String>,
    /// Special tokens that end an answer like a stop text.
    pub stop_tokens: Vec<u32>,
    /// Which tokens may come, and which must.
    pub rules: TokenRules,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            end: Vec::new(),
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            rules: TokenRules::default(),
        }
    }
}

impl SamplingOptions {
    /// Greedy decoding.
    #[must_use]
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, temperature: 0.0, ..Self::default() }
    }

    /// Checks the ranges of all options.
    ///
    /// # Errors
    /// [`Error::Input`] with the option that is out of range.
    pub fn validate(&self) -> Result<()> {
        let check = |name: &str, fits: bool, value: f32, wanted: &str| match fits {
            true => Ok(()),
            false => Err(Error::input(name, format!("it is {value}, but must be {wanted}"))),
        };
        let temperature = self.temperature;
        check("temperature", temperature >= 0.0 && temperature.is_finite(), temperature, "0 (greedy) or more")?;
        check("top_p", self.top_p > 0.0 && self.top_p <= 1.0, self.top_p, "in (0, 1] (1 is off)")?;
        check("min_p", (0.0..=1.0).contains(&self.min_p), self.min_p, "in [0, 1] (0 is off)")?;
        let penalty = self.repetition_penalty;
        check("repetition_penalty", penalty > 0.0 && penalty.is_finite(), penalty, "more than 0 (1 is off)")?;
        match self.stop.iter().any(String::is_empty) {
            true => Err(Error::input("stop", "a stop text is empty")),
            false => Ok(()),
        }
    }
}

/// The next token after `history` (prompt and answer so far), whose last `made` tokens are the answer.
///
/// # Errors
/// [`Error::NonFinite`] if a logit is not finite; [`Error::Input`] if the rules leave no token.
pub fn sample(
    logits: &[f32],
    history: &[u32],
    made: usize,
    options: &SamplingOptions,
    rng: &mut ChaCha8Rng,
) -> Result<u32> {
    if let Some(id) = logits.iter().position(|x| !x.is_finite()) {
        let message = format!("the logit of token {id} is {}; the weights or the prompt are damaged", logits[id]);
        return Err(Error::NonFinite { what: "generation".into(), message });
    }
    if logits.is_empty() {
        return Err(Error::input("logits", "there are none"));
    }
    let mut scores: Vec<(u32, f64)> = logits.iter().enumerate().map(|(i, &x)| (i as u32, f64::from(x))).collect();
    penalise(&mut scores, history, f64::from(options.repetition_penalty));
    match options.rules.allowed(history, made, options.max_new_tokens, &options.end) {
        // A forced token comes with certainty; of several, the lowest.
        Allowed::Only(forced) => scores = forced.iter().min().map(|id| (*id, 0.0)).into_iter().collect(),
        Allowed::AllBut(banned) if banned.is_empty() => (),
        Allowed::AllBut(banned) => scores.retain(|(id, _)| !banned.contains(id)),
    }
    if scores.iter().all(|(id, _)| *id as usize >= logits.len()) {
        return Err(Error::input("rules", "they leave no token of the vocabulary that may come"));
    }
    if options.temperature == 0.0 {
        return Ok(scores.iter().copied().min_by(likelier).map_or(0, |(id, _)| id));
    }
    scores.iter_mut().for_each(|(_, x)| *x /= f64::from(options.temperature));
    let candidates = candidates(scores, options);
    let total: f64 = candidates.iter().map(|(_, p)| p).sum();
    let mut left = rng.random::<f64>() * total;
    for &(id, p) in &candidates {
        left -= p;
        if left < 0.0 {
            return Ok(id);
        }
    }
    Ok(candidates[candidates.len() - 1].0)
}

/// Orders by falling probability, ties by id.
fn likelier(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

fn penalise(scores: &mut [(u32, f64)], history: &[u32], penalty: f64) {
    if penalty == 1.0 {
        return;
    }
    let mut seen = vec![false; scores.len()];
    for &id in history {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = true;
        }
    }
    for ((_, x), _) in scores.iter_mut().zip(seen).filter(|(_, seen)| *seen) {
        *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
    }
}

/// The tokens to sample from, with weights relative to the most likely one's.
fn candidates(mut scores: Vec<(u32, f64)>, options: &SamplingOptions) -> Vec<(u32, f64)> {
    if options.top_k > 0 && options.top_k < scores.len() {
        scores.select_nth_unstable_by(options.top_k - 1, likelier);
        scores.truncate(options.top_k);
        scores.sort_unstable_by(likelier);
    }
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, &(_, x)| m.max(x));
    scores.iter_mut().for_each(|(_, x)| *x = (*x - largest).exp());
    if options.top_p < 1.0 {
        scores.sort_unstable_by(likelier);
        let wanted = f64::from(options.top_p) * scores.iter().map(|(_, p)| p).sum::<f64>();
        let mut reached = 0.0;
        let enough = scores.iter().position(|(_, p)| {
            reached += p;
            reached >= wanted
        });
        scores.truncate(enough.map_or(scores.len(), |last| last + 1));
    }
    if options.min_p > 0.0 {
        scores.retain(|&(_, p)| p >= f64::from(options.min_p));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn draw(logits: &[f32], options: &SamplingOptions, count: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut counts = vec![0; logits.len()];
        for _ in 0..count {
            counts[sample(logits, &[], 0, options, &mut rng).unwrap() as usize] += 1;
        }
        counts
    }

    fn support(logits: &[f32], options: &SamplingOptions) -> Vec<usize> {
        let counts = draw(logits, options, 4000);
        (0..logits.len()).filter(|&i| counts[i] > 0).collect()
    }

    #[test]
    fn greedy_takes_the_largest_and_the_lower_id_of_equals() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let options = SamplingOptions::greedy(1);
        assert_eq!(sample(&[0.5, 2.0, 2.0, -1.0], &[], 0, &options, &mut rng).unwrap(), 1);
        assert_eq!(sample(&[-3.0, -3.0], &[], 0, &options, &mut rng).unwrap(), 0);
    }

    #[test]
    fn rules_hold_for_greedy_and_drawn_tokens_alike() {
        let rules = TokenRules { suppress: vec![1, 2], forced_last: vec![3], ..TokenRules::default() };
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for temperature in [0.0, 1.0] {
            let options =
                SamplingOptions { rules: rules.clone(), temperature, max_new_tokens: 4, ..Default::default() };
            assert_eq!(sample(&[0.5, 2.0, 2.0, -900.0], &[], 0, &options, &mut rng).unwrap(), 0);
            assert_eq!(sample(&[0.5, 2.0, 2.0, -900.0], &[0; 3], 3, &options, &mut rng).unwrap(), 3);
            let none = SamplingOptions { rules: TokenRules { suppress: vec![0, 1, 2], ..rules.clone() }, ..options };
            assert!(sample(&[0.5, 2.0, 2.0], &[], 0, &none, &mut rng).unwrap_err().to_string().contains("no token"));
        }
    }

    #[test]
    fn temperature_sampling_follows_the_softmax() {
        let logits = [1.0, 0.0, -0.5, 2.0, 0.3];
        for temperature in [0.5, 1.0, 2.0] {
            let weights: Vec<f64> = logits.iter().map(|&x| f64::from(x / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let options = SamplingOptions { temperature, ..Default::default() };
            let count = 40_000;
            let counts = draw(&logits, &options, count);
            let chi_squared: f64 = counts
                .iter()
                .zip(&weights)
                .map(|(&got, w)| {
                    let expected = w / total * count as f64;
                    (got as f64 - expected).powi(2) / expected
                })
                .sum();
            // 18.5 is the 99.9 % point at 4 degrees of freedom; the seed is fixed.
            assert!(chi_squared < 18.5, "temperature {temperature}: {counts:?} gives {chi_squared}");
        }
    }

    #[test]
    fn top_k_top_p_and_min_p_keep_what_they_should() {
        // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
        let logits: Vec<f32> = [0.5_f32, 0.25, 0.125, 0.0625, 0.0625].iter().map(|p| p.ln()).collect();
        let with = |top_k, top_p, min_p| SamplingOptions { top_k, top_p, min_p, ..Default::default() };
        assert_eq!(support(&logits, &with(0, 1.0, 0.0)), [0, 1, 2, 3, 4]);
        assert_eq!(support(&logits, &with(2, 1.0, 0.0)), [0, 1]);
        assert_eq!(support(&logits, &with(4, 1.0, 0.0)), [0, 1, 2, 3], "of equals the lower id stays");
        assert_eq!(support(&logits, &with(0, 0.6, 0.0)), [0, 1]);
        assert_eq!(support(&logits, &with(0, 0.4, 0.0)), [0]);
        assert_eq!(support(&logits, &with(0, 0.76, 0.0)), [0, 1, 2]);
        assert_eq!(support(&logits, &with(0, 1.0, 0.2)), [0, 1, 2]);
        assert_eq!(support(&logits, &with(3, 0.8, 0.0)), [0, 1], "top-p counts what top-k left: 0.75 of 0.875");
        assert_eq!(support(&logits, &with(9, 1.0, 1.0)), [0]);
    }

    #[test]
    fn the_repetition_penalty_lowers_seen_tokens_of_either_sign() {
        let mut scores = vec![(0, 2.0), (1, -2.0), (2, 3.0)];
        penalise(&mut scores, &[0, 1, 1, 77], 2.0);
        assert_eq!(scores, [(0, 1.0), (1, -4.0), (2, 3.0)]);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let refused = |options: SamplingOptions| options.validate().unwrap_err().to_string();
        let default = SamplingOptions::default;
        assert!(default().validate().is_ok());
        assert!(
            refused(SamplingOptions { temperature: -1.0, ..default() })
                .starts_with("temperature: it is -1, but must be")
        );
        assert!(refused(SamplingOptions { temperature: f32::NAN, ..default() }).starts_with("temperature"));
        assert!(refused(SamplingOptions { top_p: 0.0, ..default() }).starts_with("top_p"));
        assert!(refused(SamplingOptions { min_p: 1.5, ..default() }).starts_with("min_p"));
        assert!(refused(SamplingOptions { repetition_penalty: 0.0, ..default() }).starts_with("repetition_penalty"));
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let error = sample(&[0.0, f32::NAN], &[], 0, &default(), &mut rng).unwrap_err().to_string();
        assert!(error.contains("token 1 is NaN"), "{error}");
    }
}
