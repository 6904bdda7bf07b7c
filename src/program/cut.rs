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

impl Budget {
    /// The budget at the speed that the device has shown; before the first measurement a cautious one, for a tenth of
    /// what is usual.
    #[must_use]
    pub fn new(caps: &Caps, flops_per_second: Option<f64>) -> Self {
        let (usual, seconds) = match caps.class {
            AdapterClass::Gpu => (1e11, SECONDS_GPU),
            AdapterClass::Cpu => (2e9, SECONDS_CPU),
        };
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
