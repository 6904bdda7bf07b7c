//! The frequencies of rotary positions, and their changes for long texts.

use super::rope::RopeOptions;
use super::sinusoidal::check_table;
use crate::error::{Error, Result};
use std::f64::consts::TAU;
use std::ops::Range;
use std::sync::Arc;

/// Changes of the frequencies for texts that are longer than in training.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No change.
    #[default]
    None,
    /// All positions divided by a factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a linear blend between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// Waves longer than the trained length over this are low frequencies.
        low_freq_factor: f32,
        /// Waves shorter than the trained length over this are high frequencies.
        high_freq_factor: f32,
        /// The trained length.
        original_max_position: usize,
    },
    /// Beyond the positions that there are, which no text here is: nothing changes.
    Dynamic {
        /// What longer texts would be stretched by.
        factor: f32,
    },
    /// YaRN, Peng et al., arXiv 2309.00071: pairs that rotate fewer than `slow` times in the trained length are divided by `factor`, those
    /// that rotate more than `fast` times kept, with a linear blend between in the number of the pair; cosines and sines get a factor.
    Yarn {
        /// What low frequencies are divided by.
        factor: f32,
        /// Rotations in the trained length from which a pair is kept.
        fast: f32,
        /// Rotations in the trained length up to which a pair is divided.
        slow: f32,
        /// Whether the ends of the blend are whole pairs.
        whole: bool,
        /// What cosines and sines are multiplied by.
        attention: f32,
        /// The trained length.
        original_max_position: usize,
    },
    /// LongRoPE, Ding et al., arXiv 2402.13753: each pair's frequency is divided by its own factor; cosines and sines get a factor.
    Long {
        /// The factors of the pairs in texts that are not longer than the trained length.
        short: Arc<[f32]>,
        /// Those of longer texts. [`rope_table`](super::rope_table) takes all texts for such where [`RopeOptions::max_positions`] is more than the
        /// trained length; [`rope_table_by_length`](super::rope_table_by_length) has both.
        long: Arc<[f32]>,
        /// What cosines and sines are multiplied by.
        attention: f32,
        /// The trained length.
        original_max_position: usize,
    },
}

impl RopeOptions {
    /// The rotated elements of a head of `head_dim`.
    pub(crate) fn rotated(&self, head_dim: usize) -> Range<usize> {
        let count = self.rotary_dim.unwrap_or(head_dim).next_multiple_of(2).min(head_dim);
        if self.last { head_dim - count..head_dim } else { 0..count }
    }

    /// The trained length of LongRoPE, if there are positions beyond it: longer texts have other frequencies than shorter ones.
    #[must_use]
    pub fn goes_by_length(&self) -> Option<usize> {
        let RopeScaling::Long { original_max_position, .. } = self.scaling else { return None };
        Some(original_max_position).filter(|trained| self.max_positions > *trained)
    }

    /// The angle per position of each pair, for heads of `head_dim` elements.
    pub(super) fn frequencies(&self, head_dim: usize) -> Result<Vec<f64>> {
        let rotated = self.rotary_dim.unwrap_or(head_dim);
        let pairs = rotated.div_ceil(2);
        if rotated == 0 || pairs > head_dim / 2 {
            let what = format!(
                "rotary_dim is {rotated}; at least 1 and at most {} of a head of {head_dim} can be rotated",
                head_dim / 2 * 2
            );
            return Err(Error::shape("rope", what));
        }
        check_table("rope", self.max_positions, 2 * pairs)?;
        let factors = self.scaling.factors(self.max_positions);
        if let Some(factors) = factors.filter(|factors| factors.len() != pairs) {
            let what = format!("there are {} factors of frequencies for {pairs} pairs", factors.len());
            return Err(Error::shape("rope", what));
        }
        let frequency = |pair: usize| f64::from(self.theta).powf(-2.0 * pair as f64 / rotated as f64);
        let kept = |pair: usize| self.scaling.kept(pair, rotated, f64::from(self.theta));
        let own = |pair: usize| factors.and_then(|factors| factors.get(pair)).map_or(1.0, |factor| f64::from(*factor));
        Ok((0..pairs).map(|pair| self.scaling.apply(frequency(pair), kept(pair)) / own(pair)).collect())
    }
}

impl RopeScaling {
    /// How much of a pair's frequency YaRN keeps.
    fn kept(&self, pair: usize, rotary_dim: usize, theta: f64) -> f64 {
        let Self::Yarn { fast, slow, whole, original_max_position, .. } = *self else { return 1.0 };
        // The pair that rotates so often in the trained length.
        let pair_of = |rotations: f32| {
            let waves = original_max_position as f64 / (f64::from(rotations) * TAU);
            rotary_dim as f64 * waves.ln() / (2.0 * theta.ln())
        };
        let (low, high) = (pair_of(fast), pair_of(slow));
        let (low, high) = if whole { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
        let length = if (high - low).abs() > 0.0 { high - low } else { 0.001 };
        1.0 - ((pair as f64 - low) / length).clamp(0.0, 1.0)
    }

    /// What longer texts are stretched by; 1 where there is no such number.
    pub(crate) fn factor(&self) -> f32 {
        match *self {
            Self::Linear { factor }
            | Self::Llama3 { factor, .. }
            | Self::Dynamic { factor }
            | Self::Yarn { factor, .. } => factor,
            Self::None | Self::Long { .. } => 1.0,
        }
    }

    /// What cosines and sines are multiplied by.
    pub(super) fn attention(&self) -> f64 {
        if let Self::Yarn { attention, .. } | Self::Long { attention, .. } = self { f64::from(*attention) } else { 1.0 }
    }

    /// LongRoPE's factors of the pairs, for so many positions.
    fn factors(&self, positions: usize) -> Option<&[f32]> {
        let Self::Long { short, long, original_max_position, .. } = self else { return None };
        Some(if positions > *original_max_position { long } else { short })
    }

    /// A frequency after scaling, of which YaRN keeps so much.
    fn apply(&self, frequency: f64, kept: f64) -> f64 {
        match *self {
            Self::None | Self::Dynamic { .. } | Self::Long { .. } => frequency,
            Self::Yarn { factor, .. } => kept * frequency + (1.0 - kept) * frequency / f64::from(factor),
            Self::Linear { factor } => frequency / f64::from(factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let (low, high) = (f64::from(low_freq_factor), f64::from(high_freq_factor));
                // Periods in the trained length; outside of low..high the blend is 0 or 1.
                let waves = original_max_position as f64 * frequency / TAU;
                let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                kept * frequency + (1.0 - kept) * frequency / f64::from(factor)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192,
        };
        let wave = |length: f64| scaling.apply(TAU / length, 1.0) / (TAU / length);
        assert_eq!(wave(100.0), 1.0);
        assert_eq!(wave(20000.0), 0.125);
        // 8192 / 4096 = 2 waves, a third of the way from 1 to 4.
        assert!((wave(4096.0) - (1.0 / 3.0 + 2.0 / 3.0 / 8.0)).abs() < 1e-12);
    }

    #[test]
    fn yarn_keeps_the_first_pairs_and_divides_the_last() -> Result<()> {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            fast: 32.0,
            slow: 1.0,
            whole: true,
            attention: 1.5,
            original_max_position: 1024,
        };
        let options = |scaling| RopeOptions { scaling, ..RopeOptions::default() };
        let (plain, scaled) = (options(RopeScaling::None).frequencies(64)?, options(scaling.clone()).frequencies(64)?);
        let kept: Vec<f64> = plain.iter().zip(&scaled).map(|(plain, scaled)| scaled / plain).collect();
        // 1024 / (32 · 2π) = 5.09 waves: pair 5.6, and 1024 / 2π = 163: pair 17.7; the blend goes from 5 to 18.
        assert!(
            kept[..=5].iter().all(|kept| *kept == 1.0) && kept[18..].iter().all(|kept| (kept - 0.25).abs() < 1e-12)
        );
        assert!((kept[11] - (1.0 - 0.75 * 6.0 / 13.0)).abs() < 1e-12);
        assert_eq!(options(RopeScaling::Dynamic { factor: 2.0 }).frequencies(64)?, plain);
        assert_eq!(scaling.attention(), 1.5);
        Ok(())
    }

    #[test]
    fn factors_of_pairs_are_chosen_by_the_number_of_positions() -> Result<()> {
        let (short, long) = ([1.0, 2.0].into(), [4.0, 8.0].into());
        let scaling = RopeScaling::Long { short, long, attention: 1.5, original_max_position: 64 };
        let of = |max_positions, rotary_dim| {
            let scaling = scaling.clone();
            RopeOptions { rotary_dim, max_positions, scaling, ..RopeOptions::default() }.frequencies(16)
        };
        assert_eq!(of(64, Some(4))?, [1.0, 0.01 / 2.0]);
        assert_eq!(of(65, Some(4))?, [1.0 / 4.0, 0.01 / 8.0]);
        assert_eq!(scaling.attention(), 1.5);
        let message = of(64, None).unwrap_err().to_string();
        assert!(message.contains("there are 2 factors of frequencies for 8 pairs"), "{message}");
        Ok(())
    }

    #[test]
    fn an_odd_number_of_elements_has_a_pair_more_at_its_own_frequencies() -> Result<()> {
        let options = RopeOptions { rotary_dim: Some(3), ..RopeOptions::default() };
        let frequencies = options.frequencies(12)?;
        assert_eq!(frequencies.len(), 2);
        assert!((frequencies[1] - 10000_f64.powf(-2.0 / 3.0)).abs() < 1e-15);
        Ok(())
    }
}
