//! What the routers of a model did in a step: a few sums behind the report, and what they say.

use super::step::REPORTED;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::nn::{RouterDecision, RouterStats};
use crate::ops::{BEHIND_LOADS, BLOCK, concat};
use serde::{Deserialize, Serialize};

/// Which routers a report tells of, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoutingLayout {
    /// What each decides, and how many ways it has.
    routers: Vec<(RouterDecision, usize)>,
}

impl RoutingLayout {
    /// The layout of these routers' sums.
    #[must_use]
    pub fn new(g: &Graph, routers: &[RouterStats]) -> Self {
        let ways = |sums: Tensor| g.shape(sums).numel().saturating_sub(BEHIND_LOADS);
        Self { routers: routers.iter().map(|router| (router.decision, ways(router.sums))).collect() }
    }

    /// Elements of the range that all sums lie in: 0 without routers, else a multiple of [`BLOCK`].
    #[must_use]
    pub fn total(&self) -> usize {
        self.routers.iter().map(|(_, ways)| size(*ways)).sum()
    }

    /// Where each router's sums begin.
    pub(super) fn offsets(&self) -> Vec<usize> {
        let ends = self.routers.iter().scan(0, |end, (_, ways)| {
            let begins = *end;
            *end += size(*ways);
            Some(begins)
        });
        ends.collect()
    }

    /// Adds the report of a step: what the optimiser decided, and the sums behind it.
    pub(super) fn behind(g: &mut Graph, control: Tensor, sums: Option<Tensor>) -> Result<Tensor> {
        match sums {
            None => Ok(control),
            Some(sums) => concat(g, &[control, sums], 0),
        }
    }

    /// What the report of a step says of the routers: nothing if there are none, or the report is too short.
    #[must_use]
    pub fn read(&self, report: &[f32]) -> Option<RoutingReport> {
        let sums = report.get(REPORTED..).filter(|_| !self.routers.is_empty())?;
        let mut found = RoutingReport::default();
        let mut recursions = RecursionReport::default();
        for ((routed, ways), offset) in self.routers.iter().zip(self.offsets()) {
            let sums: Vec<f64> =
                sums.get(offset..offset + ways + BEHIND_LOADS)?.iter().map(|&x| f64::from(x)).collect();
            let (loads, behind) = sums.split_at(*ways);
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
                    let deep = |turn: usize| loads.iter().enumerate().filter(move |(way, _)| way % most >= turn);
                    let taken = (0..*most).map(|turn| deep(turn).map(|(_, load)| load).sum()).collect();
                    recursions = RecursionReport { tokens, taken, ways: loads.to_vec(), entropies: vec![entropy] };
                }
            }
        }
        found.recursions = Some(recursions).filter(|recursions| !recursions.taken.is_empty());
        Some(found)
    }
}

/// Elements that the sums of a router of so many ways take.
fn size(ways: usize) -> usize {
    (ways + BEHIND_LOADS).next_multiple_of(BLOCK)
}

/// What the routers of a model did in a step, over all its micro-batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutingReport {
    /// The gates of experts, in the order of the pass. A layer that recurs has one for each time.
    pub gates: Vec<GateReport>,
    /// The recursions, where routers decide of them.
    pub recursions: Option<RecursionReport>,
}

/// What one gate of experts did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Slots that each expert was chosen for, before any were dropped.
    pub loads: Vec<f64>,
    /// Slots that were dropped, being beyond the capacity of their expert.
    pub dropped: f64,
    /// The entropy of the scores, in nats, the mean over tokens: ln E where the gate does not care.
    pub entropy: f64,
    /// Tokens.
    pub tokens: f64,
}

/// What the routers of recursions did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecursionReport {
    /// Tokens in all.
    pub tokens: f64,
    /// Tokens that went through each recursion.
    pub taken: Vec<f64>,
    /// Tokens on each way, `block · recursions + depth`; empty where recursions choose.
    pub ways: Vec<f64>,
    /// The mean entropy, in nats, of each recursion's router over its candidates, or of the one router of the tokens.
    pub entropies: Vec<f64>,
}

impl RoutingReport {
    /// The few numbers that fit into a line.
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
    /// The largest load, divided by an even one.
    #[must_use]
    pub fn largest_load(&self) -> f64 {
        largest(&self.loads)
    }

    /// How many experts no slot chose.
    #[must_use]
    pub fn unused(&self) -> usize {
        unused(&self.loads)
    }
}

impl RecursionReport {
    /// Recursions that a token goes through, on average.
    #[must_use]
    pub fn depth(&self) -> f64 {
        self.taken.iter().sum::<f64>() / self.tokens.max(1.0)
    }

    /// The share of all tokens that each recursion took.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        self.taken.iter().map(|taken| taken / self.tokens.max(1.0)).collect()
    }

    fn summary(&self) -> RecursionSummary {
        let chosen = !self.ways.is_empty();
        RecursionSummary {
            depth: self.depth(),
            shares: self.shares(),
            entropy: self.entropies.iter().sum::<f64>() / self.entropies.len().max(1) as f64,
            largest_load: chosen.then(|| largest(&self.ways)),
            unused: chosen.then(|| unused(&self.ways)),
        }
    }
}

/// A [`RoutingReport`] in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingSummary {
    /// Of the gates of experts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertSummary>,
    /// Of the recursions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recursions: Option<RecursionSummary>,
}

/// All gates of experts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpertSummary {
    /// The largest load of an expert, divided by an even one: that of the most uneven gate.
    pub largest_load: f64,
    /// Experts that got nothing, of all gates.
    pub unused: usize,
    /// The mean entropy, in nats.
    pub entropy: f64,
    /// The share of all slots that were dropped.
    pub dropped: f64,
}

/// All recursions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecursionSummary {
    /// Recursions that a token goes through, on average.
    pub depth: f64,
    /// The share of all tokens that each recursion took.
    pub shares: Vec<f64>,
    /// The mean entropy of the routers, in nats.
    pub entropy: f64,
    /// Where tokens choose: the most tokens on one way, divided by an even number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub largest_load: Option<f64>,
    /// Where tokens choose: ways that got nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused: Option<usize>,
}

/// The largest share over an even one; 0 if there is nothing.
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
    fn recursions_count_who_went_through_them() {
        let on = layout(&[(RouterDecision::Recursion, 1), (RouterDecision::Recursion, 1)]);
        let sums = report(&[&[40.0, 0.0, 20.0, 40.0], &[10.0, 0.0, 30.0, 40.0]]);
        let found = on.read(&sums).unwrap().recursions.unwrap();
        assert_eq!((found.depth(), found.shares(), found.entropies.clone()), (1.25, vec![1.0, 0.25], vec![0.5, 0.75]));
        assert_eq!(found.summary().largest_load, None);
        // Two blocks of two recursions: 6 tokens go through one once and 2 through it twice, 4 through the other twice.
        let ways = layout(&[(RouterDecision::Depth { recursions: 2 }, 4)]);
        let found = ways.read(&report(&[&[6.0, 2.0, 0.0, 4.0, 0.0, 6.0, 12.0]])).unwrap().recursions.unwrap();
        assert_eq!((found.depth(), found.shares(), found.entropies.clone()), (1.5, vec![1.0, 0.5], vec![0.5]));
        assert_eq!((found.summary().largest_load, found.summary().unused), (Some(2.0), Some(1)));
    }

    #[test]
    fn there_is_nothing_to_say_without_routers_or_of_a_short_report() {
        assert_eq!(layout(&[]).read(&report(&[&[1.0]])), None);
        assert_eq!(layout(&[(RouterDecision::Experts, 64)]).read(&report(&[&[1.0]])), None);
        assert_eq!(layout(&[(RouterDecision::Experts, 64)]).total(), 2 * BLOCK);
    }
}
