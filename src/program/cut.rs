//! Cuts long work into submissions and ranges of dispatches by a budget of estimated time, so that no driver's watchdog kills it.

use crate::gpu::{Gpu, usual};
use crate::kernel::{AdapterClass, Caps, Dispatch};
use std::ops::Range;
use std::time::Duration;

/// How much work may go into one submission and into one dispatch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Floating-point operations of one submission.
    pub submission: f64,
    /// Floating-point operations of one dispatch.
    pub dispatch: f64,
}

/// Operations that one moved byte counts as: between a GPU's and a CPU's ratio of speed to bandwidth.
const FLOPS_PER_BYTE: f64 = 4.0;
/// Seconds of work in one submission to a GPU: well below the shortest watchdog, 2 s on Windows.
const SECONDS_GPU: f64 = 0.25;
/// The same for a CPU driver: it has no watchdog, but submitting to a busy queue blocks.
const SECONDS_CPU: f64 = 4.0;

/// Launches are cut again when the budget changes by this factor.
pub(super) const RECUT_RATIO: f64 = 1.5;

/// Seconds that a submission may take.
fn most(class: AdapterClass) -> f64 {
    match class {
        AdapterClass::Gpu => SECONDS_GPU,
        AdapterClass::Cpu => SECONDS_CPU,
    }
}

impl Budget {
    /// The budget at the measured speed of the device; before the first measurement, at a tenth of the usual speed.
    #[must_use]
    pub fn new(caps: &Caps, flops_per_second: Option<f64>) -> Self {
        Self::of(flops_per_second.unwrap_or_else(|| usual(caps.class)) * most(caps.class))
    }

    /// The budget at the device's current measured speed.
    pub(super) fn now(gpu: &Gpu) -> Self {
        Self::new(gpu.caps(), gpu.speed())
    }

    /// Whether the length of a dispatch differs from the other budget's by more than [`RECUT_RATIO`].
    pub(super) fn differs(self, other: Self) -> bool {
        let ratio = self.dispatch / other.dispatch;
        !(1.0 / RECUT_RATIO..=RECUT_RATIO).contains(&ratio)
    }

    /// The work of the device in `time` at its measured speed ([`Gpu::speed`]); before the first measurement, at a tenth of the usual speed.
    #[must_use]
    pub fn lasting(gpu: &Gpu, time: Duration) -> Self {
        Self::of(gpu.speed().unwrap_or_else(|| usual(gpu.caps().class)) * time.as_secs_f64())
    }

    /// This many floating-point operations for submissions and dispatches alike.
    #[must_use]
    pub fn of(flops: f64) -> Self {
        Self { submission: flops, dispatch: flops }
    }
}

/// The cost of a dispatch: its floating-point operations, or those that its bytes count as, whichever is more.
#[must_use]
pub fn cost(dispatch: &Dispatch) -> f64 {
    (dispatch.flops as f64).max(dispatch.bytes() as f64 * FLOPS_PER_BYTE)
}

/// The ranges of workgroups that a dispatch is cut into.
#[must_use]
pub fn cut(dispatch: &Dispatch, budget: Budget) -> Vec<Range<u32>> {
    // A budget of NaN cuts nothing.
    let pieces = (cost(dispatch) / budget.dispatch).ceil().max(1.0).min(f64::from(dispatch.groups.max(1))) as u32;
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
