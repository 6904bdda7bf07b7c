//! Repeated runs, and their medians, spreads, and shares of the ceilings measured next to each run.

use super::Options;
use super::probe::Probe;
use super::report::{Bound, Kind, Row};
use super::step::Step;
use crate::error::Result;
use crate::program::{Program, Recording};
use web_time::Instant;

/// The most runs of a row.
const RUNS: usize = 20;
/// The fewest runs of a row, however long they take.
const LEAST: usize = 3;
/// The share of a run's time for which each ceiling is measured next to it: a busy system has full speed only for moments, so a ceiling of a
/// moment and a run of seconds are not comparable.
const BESIDE: f64 = 0.2;
/// The most seconds of measuring a ceiling.
const LONGEST: f64 = 0.5;

/// The runs of a row.
#[derive(Debug, Default)]
pub(super) struct Samples {
    pub(super) seconds: Vec<f64>,
    pub(super) shares: Vec<f64>,
}

impl Samples {
    /// Runs until the time budget is used up, with the ceilings measured before and after each run.
    pub(super) fn take(
        probe: &Probe,
        options: &Options,
        parts: &[[f64; 2]],
        mut run: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let (runs, budget) = if options.quick { (7, 0.3) } else { (RUNS, 3.0) };
        let (start, mut samples) = (Instant::now(), Self::default());
        let mut before = probe.peak(0.0)?.seconds(parts);
        while samples.seconds.len() < LEAST || (samples.seconds.len() < runs && start.elapsed().as_secs_f64() < budget)
        {
            let seconds = run()?;
            let after = probe.peak((seconds * BESIDE).min(LONGEST))?.seconds(parts);
            samples.seconds.push(seconds);
            samples.shares.push((before + after) / 2.0 / seconds);
            before = after;
        }
        Ok(samples)
    }

    pub(super) fn median(&self) -> f64 {
        quantile(&self.seconds, 0.5)
    }

    pub(super) fn share(&self) -> f64 {
        quantile(&self.shares, 0.5)
    }

    fn row(&self, name: &str, kind: Kind, parts: &[[f64; 2]], probe: &Probe, tokens: Option<usize>) -> Row {
        let sum = |index: usize| parts.iter().map(|part| part[index]).sum::<f64>();
        let (flops, bytes, seconds) = (sum(0), sum(1), self.median());
        let bound = probe.ceilings().bound(parts);
        let (rate, unit) = match (tokens, bound) {
            (Some(tokens), _) => (tokens as f64 / seconds, "token/s"),
            (None, Bound::Arithmetic) => (flops / seconds, "flop/s"),
            (None, Bound::Memory) => (bytes / seconds, "B/s"),
        };
        Row {
            name: name.into(),
            kind,
            seconds,
            fastest: quantile(&self.seconds, 0.0),
            spread: spread(&self.seconds),
            runs: self.seconds.len(),
            flops,
            bytes,
            tokens,
            bound,
            rate,
            unit: unit.into(),
            share: self.share(),
            share_spread: spread(&self.shares),
        }
    }
}

/// The row of an op.
pub(super) fn kernel(probe: &Probe, options: &Options, name: &str, program: &Program, work: [f64; 2]) -> Result<Row> {
    let repeats = probe.watch.warm_up(program)?;
    let samples = Samples::take(probe, options, &[work], || probe.watch.time(program, repeats))?;
    Ok(samples.row(name, Kind::Kernel, &[work], probe, None))
}

/// The row of a step that has run before.
pub(super) fn step(probe: &Probe, options: &Options, name: &str, step: &Step) -> Result<Row> {
    let parts = parts(step.program.recording());
    let samples = step_samples(probe, options, step)?;
    Ok(samples.row(name, Kind::Step, &parts, probe, Some(step.tokens)))
}

/// The runs of a step, by the caller's clock: encoding, submitting and waiting count.
pub(super) fn step_samples(probe: &Probe, options: &Options, step: &Step) -> Result<Samples> {
    Samples::take(probe, options, &parts(step.program.recording()), || {
        super::step::timed(|| step.run()).map(|(_, seconds)| seconds)
    })
}

/// Operations and bytes of each dispatch.
pub(super) fn parts(recording: &Recording) -> Vec<[f64; 2]> {
    recording.dispatches.iter().map(|d| [d.flops as f64, d.bytes() as f64]).collect()
}

/// A quantile, interpolated between neighbours; NaN without values.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = share * sorted.len().saturating_sub(1) as f64;
    match (sorted.get(at.floor() as usize), sorted.get(at.ceil() as usize)) {
        (Some(low), Some(high)) => low + (high - low) * at.fract(),
        _ => f64::NAN,
    }
}

/// The range of the middle half, divided by the median.
fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(&[7.0], 0.25), 7.0);
        assert_eq!(spread(&[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0 / 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
