//! Statistics of a model's routers in a step: sums after the report, and the report made from them.

use super::step::REPORTED;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::nn::{RouterDecision, RouterStats};
use crate::ops::{BLOCK, STATS_TAIL, concat};
use serde::{Deserialize, Serialize};

/// The routers of a report, and the layout of their sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingLayout {
    /// The kind of each router's decision, and its number of choices.
    routers: Vec<(RouterDecision, usize)>,
}

impl RoutingLayout {
    /// The layout of the sums of these routers.
    #[must_use]
    pub fn new(g: &Graph, routers: &[RouterStats]) -> Self {
        let num_choices = |sums: Tensor| g.shape(sums).numel().saturating_sub(STATS_TAIL);
        Self { routers: routers.iter().map(|router| (router.decision, num_choices(router.sums))).collect() }
    }

    /// The number of elements of all sums: 0 without routers, else a multiple of 64.
    #[must_use]
    pub fn total(&self) -> usize {
        self.routers.iter().map(|(_, num_choices)| size(*num_choices)).sum()
    }

    /// The offset of each router's sums.
    pub(super) fn offsets(&self) -> Vec<usize> {
        let ends = self.routers.iter().scan(0, |end, (_, num_choices)| {
            let begins = *end;
            *end += size(*num_choices);
            Some(begins)
        });
        ends.collect()
    }

    /// Adds the report of a step: the control tensor of the optimiser, then the sums.
    pub(super) fn behind(g: &mut Graph, control: Tensor, sums: Option<Tensor>) -> Result<Tensor> {
        match sums {
            None => Ok(control),
            Some(sums) => concat(g, &[control, sums], 0),
        }
    }

    /// The statistics in the report of a step; `None` without routers, or if the report is too short.
    #[must_use]
    pub fn read(&self, report: &[f32]) -> Option<RoutingReport> {
        let sums = report.get(REPORTED..).filter(|_| !self.routers.is_empty())?;
        let mut found = RoutingReport::default();
        let mut recursions = RecursionReport::default();
        for ((routed, num_choices), offset) in self.routers.iter().zip(self.offsets()) {
            let sums: Vec<f64> =
                sums.get(offset..offset + num_choices + STATS_TAIL)?.iter().map(|&x| f64::from(x)).collect();
            let (loads, behind) = sums.split_at(*num_choices);
            let (dropped, entropy, tokens) = (behind[0], behind[1] / behind[2].max(1.0), behind[2]);
            match routed {
                RouterDecision::Experts => {
                    found.gates.push(GateReport { loads: loads.to_vec(), dropped, entropy, tokens });
                }
                RouterDecision::Recursion => {
                    if recursions.taken.is_empty() {
                        recursions.tokens = tokens;
                    }
                    recursions.taken.extend(loads);
                    recursions.entropies.push(entropy);
                }
                RouterDecision::Depth { recursions: most } => {
                    let deep = |recursion: usize| {
                        loads.iter().enumerate().filter(move |(choice, _)| choice % most >= recursion)
                    };
                    let taken = (0..*most).map(|recursion| deep(recursion).map(|(_, load)| load).sum()).collect();
                    recursions = RecursionReport { tokens, taken, choices: loads.to_vec(), entropies: vec![entropy] };
                }
            }
        }
        found.recursions = Some(recursions).filter(|recursions| !recursions.taken.is_empty());
        Some(found)
    }
}

/// The number of elements of a router's sums.
fn size(num_choices: usize) -> usize {
    (num_choices + STATS_TAIL).next_multiple_of(BLOCK)
}

/// Statistics of a model's routers in a step, over all its micro-batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoutingReport {
    /// The gates of experts, in order. A recursive layer has one gate per recursion.
    pub gates: Vec<GateReport>,
    /// The recursions, if they have routers.
    pub recursions: Option<RecursionReport>,
}

/// Statistics of one gate of experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GateReport {
    /// The number of slots of each expert, before any were dropped.
    pub loads: Vec<f64>,
    /// Slots that were dropped beyond the capacity of their expert.
    pub dropped: f64,
    /// The entropy of the scores, in nats, mean over tokens: ln E for uniform scores.
    pub entropy: f64,
    /// Tokens.
    pub tokens: f64,
}

/// Statistics of the routers of recursions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecursionReport {
    /// The total number of tokens.
    pub tokens: f64,
    /// The number of tokens of each recursion.
    pub taken: Vec<f64>,
    /// The number of tokens of each choice, `block · recursions + depth`; empty for expert-choice routing.
    #[serde(rename = "ways")]
    pub choices: Vec<f64>,
    /// The mean entropy, in nats, of each recursion's router over its candidates, or of the single router.
    pub entropies: Vec<f64>,
}

impl RoutingReport {
    /// A summary in a few numbers.
    #[must_use]
    pub fn summary(&self) -> RoutingSummary {
        let over = |number: fn(&GateReport) -> f64| self.gates.iter().map(number).sum::<f64>();
        let slots = over(|gate| gate.loads.iter().sum());
        let experts = (!self.gates.is_empty()).then(|| ExpertSummary {
            largest_load: self.gates.iter().map(|gate| largest(&gate.loads)).fold(0.0, f64::max),
            unused: self.gates.iter().map(|gate| unused(&gate.loads)).sum(),
            entropy: over(|gate| gate.entropy * gate.tokens) / over(|gate| gate.tokens).max(1.0),
            dropped: over(|gate| gate.dropped) / slots.max(1.0),
        });
        RoutingSummary { experts, recursions: self.recursions.as_ref().map(RecursionReport::summary) }
    }
}

impl GateReport {
    /// The largest load divided by the mean load.
    #[must_use]
    pub fn largest_load(&self) -> f64 {
        largest(&self.loads)
    }

    /// The number of experts without slots.
    #[must_use]
    pub fn unused(&self) -> usize {
        unused(&self.loads)
    }
}

impl RecursionReport {
    /// The mean number of recursions of a token.
    #[must_use]
    pub fn depth(&self) -> f64 {
        self.taken.iter().sum::<f64>() / self.tokens.max(1.0)
    }

    /// The share of tokens of each recursion.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        self.taken.iter().map(|taken| taken / self.tokens.max(1.0)).collect()
    }

    fn summary(&self) -> RecursionSummary {
        let chosen = !self.choices.is_empty();
        RecursionSummary {
            depth: self.depth(),
            shares: self.shares(),
            entropy: self.entropies.iter().sum::<f64>() / self.entropies.len().max(1) as f64,
            largest_load: chosen.then(|| largest(&self.choices)),
            unused: chosen.then(|| unused(&self.choices)),
        }
    }
}

/// A summary of a [`RoutingReport`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoutingSummary {
    /// The gates of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertSummary>,
    /// The recursions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursions: Option<RecursionSummary>,
}

/// A summary of all gates of experts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExpertSummary {
    /// The largest load divided by the mean load, of the most uneven gate.
    pub largest_load: f64,
    /// The number of experts without slots, over all gates.
    pub unused: usize,
    /// The mean entropy, in nats.
    pub entropy: f64,
    /// The share of dropped slots.
    pub dropped: f64,
}

/// A summary of all recursions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RecursionSummary {
    /// The mean number of recursions of a token.
    pub depth: f64,
    /// The share of tokens of each recursion.
    pub shares: Vec<f64>,
    /// The mean entropy of the routers, in nats.
    pub entropy: f64,
    /// For token-choice routing: the largest load of a choice divided by the mean load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_load: Option<f64>,
    /// For token-choice routing: the number of choices without tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<usize>,
}

/// The largest load divided by the mean load; 0 without loads.
fn largest(loads: &[f64]) -> f64 {
    let all: f64 = loads.iter().sum();
    let most = loads.iter().copied().fold(0.0, f64::max);
    if all > 0.0 { most * loads.len() as f64 / all } else { 0.0 }
}

fn unused(loads: &[f64]) -> usize {
    loads.iter().filter(|load| **load == 0.0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(routers: &[(RouterDecision, usize)]) -> RoutingLayout {
        RoutingLayout { routers: routers.to_vec() }
    }

    /// A report with these sums, each in a block of its own.
    fn report(sums: &[&[f32]]) -> Vec<f32> {
        let mut report = vec![0.0; REPORTED];
        for sums in sums {
            report.extend_from_slice(sums);
            report.resize(report.len() + BLOCK - sums.len(), f32::NAN);
        }
        report
    }

    #[test]
    fn gates_of_all_layers_are_summed_up() {
        let layout = layout(&[(RouterDecision::Experts, 3), (RouterDecision::Experts, 3)]);
        assert_eq!((layout.total(), layout.offsets()), (2 * BLOCK, vec![0, BLOCK]));
        let sums = report(&[&[10.0, 0.0, 20.0, 3.0, 7.5, 15.0], &[12.0, 9.0, 9.0, 0.0, 15.0, 15.0]]);
        let found = layout.read(&sums).unwrap();
        assert_eq!((found.gates[0].largest_load(), found.gates[0].unused(), found.gates[0].entropy), (2.0, 1, 0.5));
        let summary = ExpertSummary { largest_load: 2.0, unused: 1, entropy: 0.75, dropped: 0.05 };
        assert_eq!(found.summary(), RoutingSummary { experts: Some(summary), recursions: None });
    }

    #[test]
    fn recursions_count_their_tokens() {
        let on = layout(&[(RouterDecision::Recursion, 1), (RouterDecision::Recursion, 1)]);
        let sums = report(&[&[40.0, 0.0, 20.0, 40.0], &[10.0, 0.0, 30.0, 40.0]]);
        let found = on.read(&sums).unwrap().recursions.unwrap();
        assert_eq!((found.depth(), found.shares(), found.entropies.clone()), (1.25, vec![1.0, 0.25], vec![0.5, 0.75]));
        assert_eq!(found.summary().largest_load, None);
        // Two blocks of two recursions: 6 tokens go through one once and 2 through it twice, 4 through the other twice.
        let num_choices = layout(&[(RouterDecision::Depth { recursions: 2 }, 4)]);
        let found = num_choices.read(&report(&[&[6.0, 2.0, 0.0, 4.0, 0.0, 6.0, 12.0]])).unwrap().recursions.unwrap();
        assert_eq!((found.depth(), found.shares(), found.entropies.clone()), (1.5, vec![1.0, 0.5], vec![0.5]));
        assert_eq!((found.summary().largest_load, found.summary().unused), (Some(2.0), Some(1)));
    }

    #[test]
    fn there_are_no_statistics_without_routers_or_in_a_short_report() {
        assert_eq!(layout(&[]).read(&report(&[&[1.0]])), None);
        assert_eq!(layout(&[(RouterDecision::Experts, 64)]).read(&report(&[&[1.0]])), None);
        assert_eq!(layout(&[(RouterDecision::Experts, 64)]).total(), 2 * BLOCK);
    }
}
