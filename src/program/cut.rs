//! Cutting long work, so that no driver's watchdog kills it: submissions and dispatches by a budget of estimated time.

use crate::kernel::{AdapterClass, Caps, Dispatch};
use std::ops::Range;

/// How much work may go into one submission and into one dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Floating-point operations of one submission.
    pub submission: f64,
    /// Floating-point operations of one dispatch.
    pub dispatch: f64,
}

/// Operations that the movement of one byte counts for: between a GPU's and a CPU's ratio of speed to bandwidth.
const FLOPS_PER_BYTE: f64 = 4.0;
/// Seconds of work in one submission of a GPU that no watchdog minds (the shortest, on Windows, bites at 2 s).
const SECONDS_GPU: f64 = 0.25;
/// The same of a driver that computes on the CPU: it has no watchdog, but submitting behind a busy queue blocks.
const SECONDS_CPU: f64 = 4.0;

/// How far below what it is taken for at first the speed of a device may be.
const SLOWEST: f64 = 50.0;

/// Operations a second that a device of that class is taken for until it has shown its speed, a tenth of what is usual, and the
/// seconds that a submission may take.
fn of_class(class: AdapterClass) -> (f64, f64) {
    match class {
        AdapterClass::Gpu => (1e11, SECONDS_GPU),
        AdapterClass::Cpu => (2e9, SECONDS_CPU),
    }
}

/// What the speed of a device is taken for after runs of that cost took so many seconds.
///
/// What is over in a fiftieth of the time that a submission may take was mostly waiting, and does not count as slow: else a few numbers
/// added up would have everything that is prepared behind them cut into small pieces. Nor is any device [`SLOWEST`] times slower than
/// it is taken for at first; what looks like it was a driver at its first work. An average over a few runs, because kernels differ
/// in speed by factors.
pub(super) fn speed_after(class: AdapterClass, known: Option<f64>, cost: f64, seconds: f64) -> Option<f64> {
    let (usual, most) = of_class(class);
    let speed = (cost / seconds.max(1e-6)).max(usual / SLOWEST);
    match known {
        _ if seconds < most / 50.0 && speed < known.unwrap_or(usual) => known,
        Some(known) => Some(0.75 * known + 0.25 * speed),
        None => Some(speed),
    }
}

impl Budget {
    /// The budget at the speed that the device has shown; before the first measurement a cautious one, for a tenth of
    /// what is usual.
    #[must_use]
    pub fn new(caps: &Caps, flops_per_second: Option<f64>) -> Self {
        let (usual, seconds) = of_class(caps.class);
        Self::of(flops_per_second.unwrap_or(usual) * seconds)
    }

    /// This many floating-point operations for submissions and dispatches alike.
    #[must_use]
    pub fn of(flops: f64) -> Self {
        Self { submission: flops, dispatch: flops }
    }
}

/// What a dispatch costs, in floating-point operations or what its bytes amount to.
#[must_use]
pub fn cost(dispatch: &Dispatch) -> f64 {
    (dispatch.flops as f64).max(dispatch.bytes() as f64 * FLOPS_PER_BYTE)
}

/// The ranges of workgroups that a dispatch is cut into.
#[must_use]
pub fn cut(dispatch: &Dispatch, budget: Budget) -> Vec<Range<u32>> {
    let pieces = (cost(dispatch) / budget.dispatch).ceil().clamp(1.0, f64::from(dispatch.groups.max(1))) as u32;
    let size = dispatch.groups.div_ceil(pieces);
    (0..pieces)
        .map(|i| (i * size).min(dispatch.groups)..((i + 1) * size).min(dispatch.groups))
        .filter(|r| !r.is_empty())
        .collect()
}

/// The ranges of steps that go into one submission each.
#[must_use]
pub fn submissions(costs: &[f64], budget: Budget) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut sum) = (0, 0.0);
    for (index, cost) in costs.iter().enumerate() {
        if index > start && sum + cost > budget.submission {
            ranges.push(start..index);
            (start, sum) = (index, 0.0);
        }
        sum += cost;
    }
    if start < costs.len() {
        ranges.push(start..costs.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_learnt_from_work_and_not_from_waiting() {
        let gpu = AdapterClass::Gpu;
        // A few numbers, over as soon as they can be, before and after real work.
        assert_eq!(speed_after(gpu, None, 1e3, 1e-4), None);
        assert_eq!(speed_after(gpu, Some(1e13), 1e3, 1e-4), Some(1e13));
        // Real work: the first is believed, what follows shifts it.
        assert_eq!(speed_after(gpu, None, 1e12, 0.1), Some(1e13));
        assert_eq!(speed_after(gpu, Some(1e13), 1e11, 0.1), Some(0.75e13 + 0.25e12));
        // However short, what is faster than known counts.
        assert_eq!(speed_after(gpu, None, 1e9, 1e-3), Some(1e12));
        // A driver that compiles at its first work.
        assert_eq!(speed_after(gpu, None, 1e3, 3.0), Some(2e9));
        let cpu = AdapterClass::Cpu;
        assert_eq!(speed_after(cpu, Some(5e10), 1e7, 0.01), Some(5e10));
        assert_eq!(speed_after(cpu, Some(5e10), 1e9, 0.1), Some(0.75 * 5e10 + 0.25 * 1e10));
    }
}
