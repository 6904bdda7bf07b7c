//! The options of sampling.

use super::rules::TokenRules;
use crate::error::{Error, Result};
#[cfg(feature = "tokenizers")]
use crate::io::Tokenizer;
use crate::ops::TokenChoice;
use derive_setters::Setters;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// The sampling of tokens, and the end of answers.
///
/// The order is that of Hugging Face: repetition penalty, rules, temperature, top-k, top-p, min-p. Equally likely tokens stay or go together.
#[derive(Clone, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
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
    /// `renormalize_logits`: the probabilities of what rules and sampling leave sum to 1, which counts in the scores of beams.
    pub renormalise: bool,
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
            renormalise: false,
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

    /// Adds a text that ends an answer. A special token is matched as a token, since it has no text.
    ///
    /// # Errors
    /// [`Error::Input`] if a special token is only a part of it.
    #[cfg(feature = "tokenizers")]
    pub fn add_stop(&mut self, stop: &str, tokenizer: &Tokenizer) -> Result<()> {
        if let Some(id) = tokenizer.id(stop).filter(|&id| tokenizer.is_special(id)) {
            self.stop_tokens.push(id);
            return Ok(());
        }
        // A character without a token can't be generated; that is not an error.
        let special = tokenizer.encode(stop).unwrap_or_default().into_iter().find(|&id| tokenizer.is_special(id));
        if let Some(token) = special.and_then(|id| tokenizer.token(id)) {
            let message = format!("{stop:?} contains the special token {token}: give the token alone");
            return Err(Error::input("stop", message));
        }
        self.stop.push(stop.to_owned());
        Ok(())
    }

    /// How the GPU chooses the next token of a row. Greedy decoding takes no random number.
    pub(super) fn choice(&self, rng: &mut ChaCha8Rng) -> TokenChoice {
        let greedy = self.temperature == 0.0;
        TokenChoice {
            // So large that only the likeliest is left, and finite.
            scale: if greedy { 0.0 } else { self.temperature.recip().min(1e30) },
            top_k: u32::try_from(self.top_k).unwrap_or(0),
            top_p: self.top_p,
            min_p: self.min_p,
            random: if greedy { 0.0 } else { rng.random::<f32>() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn choose(logits: &[f32], options: &SamplingOptions, rng: &mut ChaCha8Rng) -> u32 {
        options.choice(rng).of(&logits.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())
    }

    fn draw(logits: &[f32], options: &SamplingOptions, count: usize) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut counts = vec![0; logits.len()];
        for _ in 0..count {
            counts[choose(logits, options, &mut rng) as usize] += 1;
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
        assert_eq!(choose(&[0.5, 2.0, 2.0, -1.0], &options, &mut rng), 1);
        assert_eq!(choose(&[-3.0, -3.0], &options, &mut rng), 0);
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
        assert_eq!(support(&logits, &with(4, 1.0, 0.0)), [0, 1, 2, 3, 4], "equals stay together");
        assert_eq!(support(&logits, &with(0, 0.6, 0.0)), [0, 1]);
        assert_eq!(support(&logits, &with(0, 0.4, 0.0)), [0]);
        assert_eq!(support(&logits, &with(0, 0.76, 0.0)), [0, 1, 2]);
        assert_eq!(support(&logits, &with(0, 1.0, 0.2)), [0, 1, 2]);
        assert_eq!(support(&logits, &with(3, 0.8, 0.0)), [0, 1], "top-p counts what top-k left: 0.75 of 0.875");
        assert_eq!(support(&logits, &with(9, 1.0, 1.0)), [0]);
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
        assert_eq!(choose(&[0.0, f32::NAN], &default(), &mut rng), crate::ops::DAMAGED_ROW);
        assert_eq!(choose(&[-3e38, -3e38], &default(), &mut rng), crate::ops::BANNED_ROW);
    }
}
