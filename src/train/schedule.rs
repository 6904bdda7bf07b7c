//! Learning rates over the steps of a training run.

use crate::error::{Error, Result};
use derive_setters::Setters;

/// How the learning rate falls after the warm-up. A floor is a fraction of the peak.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
#[non_exhaustive]
pub enum Decay {
    /// Constant at the peak.
    Constant,
    /// Half a cosine from the peak to the floor (arXiv 1608.03983, without restarts).
    Cosine {
        /// The final rate as a fraction of the peak.
        floor: f64,
    },
    /// Linear from the peak to the floor.
    Linear {
        /// The final rate as a fraction of the peak.
        floor: f64,
    },
    /// Warm-up, stable, decay (arXiv 2404.06395): the peak, then linear to the floor over the last steps.
    Wsd {
        /// The share of steps of the decay.
        fraction: f64,
        /// The final rate as a fraction of the peak.
        floor: f64,
    },
}

/// A learning rate for each step, counted from 0.
///
/// The first `warmup` steps rise linearly, and the last of them has the peak; then [`Decay`] follows. From step `steps` on the rate is the
/// floor.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, Setters)]
#[setters(prefix = "with_", strip_option)]
pub struct Schedule {
    /// The largest learning rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The decay after the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// A constant rate.
    #[must_use]
    pub fn constant(rate: f64) -> Self {
        Self { peak: rate, warmup: 0, steps: 1, decay: Decay::Constant }
    }

    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// [`Error::Input`] with the value that is out of range.
    pub fn check(&self) -> Result<()> {
        let share = |what: &str, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::input(what, format!("it is {value}, but must be between 0 and 1")))
            }
        };
        // It is used as an f32.
        if !((self.peak as f32).is_finite() && self.peak >= 0.0) {
            return Err(Error::input("learning rate", format!("it is {}, but must be from 0 to 3.4e38", self.peak)));
        }
        if self.warmup > self.steps {
            let message = format!("it is {}, longer than the run of {} steps", self.warmup, self.steps);
            return Err(Error::input("warm-up", message));
        }
        match self.decay {
            Decay::Constant => Ok(()),
            Decay::Cosine { floor } | Decay::Linear { floor } => share("floor of the learning rate", floor),
            Decay::Wsd { fraction, floor } => {
                share("floor of the learning rate", floor)?;
                share("share of the decay", fraction)
            }
        }
    }

    /// The learning rate of a step.
    #[must_use]
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let fall = |floor: f64, share: f64| self.peak * (floor + (1.0 - floor) * share);
        match self.decay {
            Decay::Constant => self.peak,
            Decay::Cosine { floor } => {
                fall(floor, 0.5 * (1.0 + (std::f64::consts::PI * self.progress(step, self.warmup)).cos()))
            }
            Decay::Linear { floor } => fall(floor, 1.0 - self.progress(step, self.warmup)),
            Decay::Wsd { fraction, floor } => {
                let last = (self.steps as f64 * fraction).round() as u64;
                let begin = self.steps.saturating_sub(last).max(self.warmup);
                fall(floor, 1.0 - self.progress(step, begin))
            }
        }
    }

    /// The progress of a step between `begin` and the end of the run, from 0 to 1.
    fn progress(&self, step: u64, begin: u64) -> f64 {
        if step >= self.steps {
            return 1.0;
        }
        step.saturating_sub(begin) as f64 / self.steps.saturating_sub(begin).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(warmup: u64, steps: u64, decay: Decay, at: &[u64]) -> Vec<f64> {
        let schedule = Schedule { peak: 2.0, warmup, steps, decay };
        schedule.check().unwrap();
        at.iter().map(|&step| schedule.rate(step)).collect()
    }

    #[test]
    fn rates_are_those_worked_out_by_hand() {
        let close = |got: Vec<f64>, expected: &[f64]| {
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} instead of {expected:?}");
        };
        close(rates(4, 10, Decay::Constant, &[0, 1, 3, 4, 9, 50]), &[0.5, 1.0, 2.0, 2.0, 2.0, 2.0]);
        // cos(π/4) = 1/√2 at a quarter of the way, 0 at half of it.
        let quarter = 0.2 + 1.8 * 0.5 * (1.0 + 0.5f64.sqrt());
        close(
            rates(2, 10, Decay::Cosine { floor: 0.1 }, &[0, 1, 2, 4, 6, 10, 99]),
            &[1.0, 2.0, 2.0, quarter, 1.1, 0.2, 0.2],
        );
        close(rates(0, 8, Decay::Linear { floor: 0.5 }, &[0, 2, 4, 8, 9]), &[2.0, 1.75, 1.5, 1.0, 1.0]);
        let wsd = Decay::Wsd { fraction: 0.4, floor: 0.0 };
        close(rates(2, 10, wsd, &[0, 1, 5, 6, 7, 8, 9, 10, 11]), &[1.0, 2.0, 2.0, 2.0, 1.5, 1.0, 0.5, 0.0, 0.0]);
    }

    #[test]
    fn runs_of_every_length_stay_between_zero_and_the_peak() {
        let decays = [
            Decay::Constant,
            Decay::Cosine { floor: 0.0 },
            Decay::Linear { floor: 0.1 },
            Decay::Wsd { fraction: 1.0, floor: 0.0 },
            Decay::Wsd { fraction: 0.0, floor: 0.5 },
        ];
        for decay in decays {
            for steps in 0..12 {
                for warmup in 0..=steps {
                    let at: Vec<u64> = (0..15).collect();
                    let got = rates(warmup, steps, decay, &at);
                    assert!(got.iter().all(|r| (0.0..=2.0).contains(r)), "{decay:?} {warmup}/{steps}: {got:?}");
                    assert!(
                        steps == 0 || got[0] > 0.0,
                        "{decay:?} {warmup}/{steps} does not learn from its first step"
                    );
                    let after = &got[warmup as usize..];
                    assert!(after.windows(2).all(|w| w[0] >= w[1]), "{decay:?} {warmup}/{steps} rises again: {got:?}");
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let schedule = Schedule { peak: 1e-3, warmup: 10, steps: 100, decay: Decay::Cosine { floor: 0.1 } };
        let error_of = |s: Schedule| s.check().unwrap_err().to_string();
        assert!(error_of(Schedule { peak: f64::NAN, ..schedule }).contains("learning rate"));
        assert!(error_of(Schedule { peak: -1.0, ..schedule }).contains("must be from 0 to 3.4e38"));
        assert!(error_of(Schedule { warmup: 101, ..schedule }).contains("100 steps"));
        assert!(error_of(Schedule { decay: Decay::Linear { floor: 1.5 }, ..schedule }).contains("between 0 and 1"));
        assert!(error_of(Schedule { decay: Decay::Wsd { fraction: -0.1, floor: 0.0 }, ..schedule }).contains("share"));
    }

    #[test]
    fn its_json_is_readable() {
        let text = r#"{"peak":0.001,"warmup":5,"steps":50,"decay":{"kind":"wsd","fraction":0.2,"floor":0.0}}"#;
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        assert_eq!(schedule.decay, Decay::Wsd { fraction: 0.2, floor: 0.0 });
        assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
    }
}
