//! What sampling leaves of the likeliest tokens of a row.

use super::sampling::SamplingOptions;
use crate::error::{Error, Result};

/// The most candidates of a row that a step gives back: 1 KiB.
pub(super) const MOST_CANDIDATES: usize = 128;

impl SamplingOptions {
    /// The number of tokens that stay at least, so that one which goes on is left where all others end.
    pub(super) fn least(&self) -> usize {
        self.end.len() + self.stop_tokens.len() + 1
    }

    /// Checks that tokens of beams can be drawn with these options.
    pub(super) fn validate_for_drawn_beams(&self) -> Result<()> {
        if self.temperature == 0.0 {
            return Err(Error::input("temperature", "it is 0, but beams that are drawn need more than 0"));
        }
        match self.top_k {
            1..=MOST_CANDIDATES => Ok(()),
            top_k => {
                let what = format!("it is {top_k}, but beams that are drawn need 1 to {MOST_CANDIDATES}");
                Err(Error::input("top_k", what))
            }
        }
    }

    /// What stays of the likeliest tokens of a row, with the logarithms of their probabilities over the temperature. At least `least` stay, where
    /// there are so many. `tokens` are the likeliest in any order, `top_k` of them or `least` if that is more.
    pub(super) fn warped(&self, mut tokens: Vec<(u32, f64)>, least: usize) -> Vec<(u32, f64)> {
        tokens.iter_mut().for_each(|(_, p)| *p /= f64::from(self.temperature));
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        tokens.truncate(self.top_k.max(least));
        let largest = tokens.first().map_or(0.0, |(_, p)| *p);
        let weights: Vec<f64> = tokens.iter().map(|(_, p)| (p - largest).exp()).collect();
        let mut stay = tokens.len();
        if self.top_p < 1.0 {
            // A token goes where it and all less likely ones have no more than what is left over.
            let (whole, mut tail) = (weights.iter().sum::<f64>(), 0.0);
            for weight in weights.iter().rev() {
                tail += weight;
                if tail > (1.0 - f64::from(self.top_p)) * whole {
                    break;
                }
                stay -= 1;
            }
        }
        let likely = weights.iter().take(stay).take_while(|weight| **weight >= f64::from(self.min_p)).count();
        tokens.truncate(likely.max(least));
        if self.renormalise {
            let whole = largest + tokens.iter().map(|(_, p)| (p - largest).exp()).sum::<f64>().ln();
            tokens.iter_mut().for_each(|(_, p)| *p -= whole);
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_that_of_sampling() {
        let probabilities = [0.125, 0.5, 0.0625, 0.25, 0.0625];
        let all = || (0..).zip(probabilities.map(f64::ln)).collect::<Vec<(u32, f64)>>();
        let ids = |options: SamplingOptions, least| -> Vec<u32> {
            options.warped(all(), least).into_iter().map(|(token, _)| token).collect()
        };
        let with = |top_k, top_p, min_p| SamplingOptions { top_k, top_p, min_p, ..SamplingOptions::default() };
        assert_eq!(ids(with(50, 1.0, 0.0), 2), [1, 3, 0, 2, 4]);
        assert_eq!(ids(with(3, 1.0, 0.0), 2), [1, 3, 0]);
        assert_eq!(ids(with(1, 1.0, 0.0), 2), [1, 3], "two stay whatever top-k says");
        assert_eq!(ids(with(50, 0.6, 0.0), 1), [1, 3]);
        assert_eq!(ids(with(50, 0.4, 0.0), 1), [1]);
        assert_eq!(ids(with(50, 0.76, 0.0), 1), [1, 3, 0]);
        assert_eq!(ids(with(50, 1.0, 0.3), 1), [1, 3]);
        assert_eq!(ids(with(50, 0.4, 1.0), 3), [1, 3, 0]);
        let hot = SamplingOptions { temperature: 2.0, top_k: 2, renormalise: true, ..SamplingOptions::default() };
        let warped = hot.warped(all(), 1);
        approx::assert_relative_eq!(warped[0].1 - warped[1].1, 2.0_f64.ln() / 2.0, epsilon = 1e-12);
        approx::assert_relative_eq!(warped.iter().map(|(_, p)| p.exp()).sum::<f64>(), 1.0, epsilon = 1e-12);
    }

    #[test]
    fn options_that_do_not_draw_beams_are_refused() {
        let refused = |options: SamplingOptions| options.validate_for_drawn_beams().unwrap_err().to_string();
        assert!(refused(SamplingOptions::greedy(1)).contains("temperature: it is 0"));
        assert_eq!(refused(SamplingOptions::default()), "top_k: it is 0, but beams that are drawn need 1 to 128");
        assert!(SamplingOptions { top_k: 50, ..SamplingOptions::default() }.validate_for_drawn_beams().is_ok());
    }
}
