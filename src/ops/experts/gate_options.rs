//! Options of gates, and the division of work in their kernels.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Snippet, kernel};
use crate::ops::rows::{RowVariant, with_reduction, with_subgroup_reduction};
use crate::shape::TensorType;
use derive_setters::Setters;
use std::cmp::Ordering;

static COMMON: Snippet = kernel!("common/gate");

/// The most experts of a gate: one invocation each, in the largest workgroup that every adapter allows.
const MOST_EXPERTS: usize = 256;
/// The most groups: one bit each.
const MOST_GROUPS: usize = 32;
/// The most loop iterations of one invocation: Mesa's CPU drivers leave loops after 65,535 in all.
const MAX_ITERATIONS: usize = 1 << 15;
/// Added to the sum that divides weights.
pub(super) const EPSILON: f64 = 1e-20;

/// How logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateScores {
    /// The softmax of the logits.
    Softmax,
    /// The logistic function of each logit.
    Sigmoid,
}

/// Experts in groups of equal size, of which only the best stay for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateGroups {
    /// The number of groups, at most 32.
    pub count: usize,
    /// The number of groups that stay.
    pub keep: usize,
}

/// How a gate scores, chooses and weighs experts.
///
/// | gate | scores | k | renormalise | scale | groups | bias |
/// |---|---|---|---|---|---|---|
/// | Switch (arXiv 2101.03961) | softmax | 1 | no | 1 | | |
/// | GShard (arXiv 2006.16668), Mixtral (arXiv 2401.04088) | softmax | 2 | yes | 1 | | |
/// | OLMoE (arXiv 2409.02060), Qwen2-MoE | softmax | 8 | no | 1 | | |
/// | DeepSeek-V3 (arXiv 2412.19437) | sigmoid | 8 | yes | 2.5 | 4 of 8 | yes |
#[derive(Clone, Copy, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct GateOptions {
    /// Experts for each token.
    pub k: usize,
    /// What the scores are.
    pub scores: GateScores,
    /// Whether the weights of a token are divided by their sum.
    pub renormalise: bool,
    /// A factor on all weights.
    pub scale: f32,
    /// Experts in groups.
    pub groups: Option<GateGroups>,
}

impl GateOptions {
    /// The `k` largest of a softmax, unchanged.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, scores: GateScores::Softmax, renormalise: false, scale: 1.0, groups: None }
    }
}

impl GateOptions {
    /// Refuses options that don't fit the number of experts.
    pub(super) fn check(&self, experts: usize) -> Result<()> {
        let refuse = |what: String| Err(Error::shape("top_k_gate", what));
        let groups = self.groups.unwrap_or(GateGroups { count: 1, keep: 1 });
        if experts > MOST_EXPERTS {
            return refuse(format!("{experts} experts: a gate can choose from at most {MOST_EXPERTS}"));
        }
        if groups.count == 0 || groups.count > MOST_GROUPS || !experts.is_multiple_of(groups.count) {
            let what = "they must be equal, and at most";
            return refuse(format!("{experts} experts in {} groups: {what} {MOST_GROUPS}", groups.count));
        }
        if groups.keep == 0 || groups.keep > groups.count {
            return refuse(format!("{} of {} groups can't stay", groups.keep, groups.count));
        }
        let left = experts / groups.count * groups.keep;
        if self.k == 0 || self.k > left {
            return refuse(format!("{} experts per token can't be chosen from {left}", self.k));
        }
        if !self.scale.is_finite() {
            return refuse(format!("the scale of the weights is {}, which is not finite", self.scale));
        }
        Ok(())
    }

    /// The scores of a token's experts.
    pub(super) fn score(&self, logits: &[f64]) -> Vec<f64> {
        let lse = log_sum_exp(logits);
        logits
            .iter()
            .map(|&z| match self.scores {
                GateScores::Softmax => (z - lse).exp(),
                GateScores::Sigmoid => logistic(z),
            })
            .collect()
    }

    /// The factor of chosen scores that sum to `sum`.
    pub(super) fn factor(&self, sum: f64) -> f64 {
        f64::from(self.scale) / if self.renormalise { sum + EPSILON } else { 1.0 }
    }

    /// A token's experts, the best first.
    pub(super) fn choose(&self, logits: &[f64], scores: &[f64], bias: Option<&[f64]>) -> Vec<usize> {
        let choice: Vec<f64> = match (bias, self.groups) {
            (Some(bias), _) => scores.iter().zip(bias).map(|(s, b)| s + b).collect(),
            (None, Some(_)) => scores.to_vec(),
            (None, None) => logits.to_vec(),
        };
        let mut left: Vec<usize> = (0..choice.len()).collect();
        if let Some(groups) = self.groups {
            let members = choice.len() / groups.count;
            let two_best = |group: &[f64]| -> f64 {
                let mut group = group.to_vec();
                group.sort_by(|a, b| descending(*a, *b));
                group.iter().take(2).sum()
            };
            let sums: Vec<f64> = choice.chunks(members).map(two_best).collect();
            let mut order: Vec<usize> = (0..groups.count).collect();
            order.sort_by(|&a, &b| descending(sums[a], sums[b]));
            left.retain(|e| order[..groups.keep].contains(&(e / members)));
        }
        // Stable, so that ties go to the lower index.
        left.sort_by(|&a, &b| descending(choice[a], choice[b]));
        left.truncate(self.k);
        left
    }

    /// A dispatch over tokens, with the common parts of both kernels of a pair.
    pub(super) fn over_tokens(
        &self,
        caps: &Caps,
        kernels: &'static [Kernel; 2],
        variant: Option<RowVariant>,
        tokens: usize,
        experts: usize,
    ) -> Dispatch {
        let lanes = experts.next_power_of_two().max(32) as u32;
        let enough = caps.subgroup.filter(|subgroup| *subgroup as usize >= experts);
        let variant = match (variant, caps.class) {
            (Some(variant), _) => variant,
            (None, AdapterClass::Cpu) => RowVariant::Threads,
            (None, AdapterClass::Gpu) if experts < 32 => RowVariant::Threads,
            (None, AdapterClass::Gpu) => RowVariant::Subgroup,
        };
        let variant = if self.k * experts > MAX_ITERATIONS { RowVariant::Workgroup } else { variant };
        let dispatch = match (variant, enough, caps.class) {
            // As wide as the processor's vectors, so that few tokens still use all cores.
            (RowVariant::Threads, _, AdapterClass::Cpu) => by_threads(kernels, tokens, 8),
            (RowVariant::Threads, _, AdapterClass::Gpu) => by_threads(kernels, tokens, 64),
            (RowVariant::Subgroup, Some(lanes), _) => with_subgroup_reduction(by_group(kernels, tokens), lanes),
            _ => with_reduction(by_group(kernels, tokens), caps, lanes),
        };
        dispatch
            .constant("EXPERTS", experts as u32)
            .constant("CHOICES", self.k as u32)
            .constant("SIGMOID", self.scores == GateScores::Sigmoid)
            .constant("RENORMALISE", self.renormalise)
            .snippet(&COMMON)
            .param_f32(self.scale)
            .flops((tokens * experts * (self.k + 4)) as u64)
    }
}

fn by_threads(kernels: &'static [Kernel; 2], tokens: usize, lanes: usize) -> Dispatch {
    let dispatch = Dispatch::new(&kernels[0]).constant("LANES", lanes as u32);
    dispatch.param(tokens).groups_for(tokens, lanes)
}

fn by_group(kernels: &'static [Kernel; 2], tokens: usize) -> Dispatch {
    Dispatch::new(&kernels[1]).groups(tokens)
}

/// Tokens and experts of the logits.
pub(super) fn sizes(op: &str, logits: &TensorType) -> Result<[usize; 2]> {
    match (logits.dtype, logits.shape.dims()) {
        (DType::F32, &[tokens, experts]) if tokens * experts > 0 => Ok([tokens, experts]),
        _ => Err(Error::shape(op, format!("expected the logits of experts as an f32 matrix, got {logits}"))),
    }
}

pub(super) fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + logits.iter().map(|z| (z - top).exp()).sum::<f64>().ln()
}

pub(super) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A total order even of NaNs; both zeros are equal.
pub(in crate::ops) fn descending(a: f64, b: f64) -> Ordering {
    (b + 0.0).total_cmp(&(a + 0.0))
}
