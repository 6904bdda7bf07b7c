//! Statistics of a router for the report of a training step.

use super::row_entropy::{binary_entropy, row_entropy, time_of};
use super::select::NONE;
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::rows::with_reduction;
use crate::ops::{self, GateOptions, SelectOptions, SelectRule};
use crate::shape::TensorType;

static ROUTER_STATS: Kernel = kernel!("recursion/router_stats");

/// The number of values of [`router_stats`] after the loads: dropped slots, the sum of entropies, tokens.
pub(crate) const STATS_TAIL: usize = 3;

/// The assignment of tokens by a router.
#[derive(Clone, Copy, Debug)]
pub enum Assignment {
    /// Slots of experts: the beginning of each expert's slots in the order of [`SortedIndex`](crate::ops::SortedIndex), before and after some
    /// were dropped, both (R + 1) u32.
    Slots {
        /// As the gate chose.
        starts: Tensor,
        /// Within the capacity.
        limited: Option<Tensor>,
    },
    /// One choice per token, (N) u32.
    Choice(Tensor),
    /// Selected or not: `inverse` (N) u32 of [`Selected`](super::Selected).
    Selected(Tensor),
}

/// The load of each choice, the number of dropped slots, the sum of the router's entropies and the number of tokens: (R + 3) f32. Sums of
/// several passes can be added. For reports; no gradient.
///
/// `scores` (N, R) f32 are not negative; for [`Assignment::Selected`] they are logits (N, 1). With `lengths` (B) u32, where B divides N, only
/// the first `lengths[b]` tokens of each N / B count.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn router_stats(g: &mut Graph, scores: Tensor, assignment: Assignment, lengths: Option<Tensor>) -> Result<Tensor> {
    let entropies = match assignment {
        Assignment::Selected(_) => binary_entropy(g, scores, lengths)?,
        Assignment::Slots { .. } | Assignment::Choice(_) => row_entropy(g, scores, lengths)?,
    };
    let (source, from, limited) = match assignment {
        Assignment::Slots { starts, limited } => (Source::Starts, starts, limited),
        Assignment::Choice(choice) => (Source::Choice, choice, None),
        Assignment::Selected(inverse) => (Source::Inverse, inverse, None),
    };
    let num_choices = g.shape(scores).last();
    let op = RouterStatsOp { num_choices, source, limited: limited.is_some() };
    let inputs: Vec<Tensor> = [Some(entropies), Some(from), limited, lengths].into_iter().flatten().collect();
    g.put1(op, &inputs)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Starts,
    Choice,
    Inverse,
}

/// See [`router_stats`]. Inputs: entropies (N) f32, then u32 starts (R + 1), choice (N) or inverse (N), and optionally the starts within
/// the capacity (R + 1) and lengths (B). No gradient.
#[derive(Debug)]
struct RouterStatsOp {
    num_choices: usize,
    source: Source,
    limited: bool,
}

impl RouterStatsOp {
    /// The optional inputs: starts within the capacity and lengths.
    fn optional<T>(&self, count: usize, input: impl Fn(usize) -> T) -> [Option<T>; 2] {
        let lengths = 2 + usize::from(self.limited);
        [self.limited.then(|| input(2)), (count > lengths).then(|| input(lengths))]
    }
}

impl Op for RouterStatsOp {
    fn name(&self) -> &'static str {
        "router_stats"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let tokens = inputs[0].shape.numel();
        let starts = TensorType::new([self.num_choices + 1], DType::U32);
        let wanted = if self.source == Source::Starts { &starts } else { &TensorType::new([tokens], DType::U32) };
        let [limited, lengths] = self.optional(inputs.len(), |index| &inputs[index]);
        for (what, found, wanted) in [("the assignment", Some(&inputs[1]), wanted), ("limited", limited, &starts)] {
            if let Some(found) = found.filter(|found| *found != wanted) {
                return Err(Error::shape(self.name(), format!("{what} is {found}, expected {wanted}")));
            }
        }
        time_of(self.name(), tokens, lengths)?;
        Ok(vec![TensorType::f32([self.num_choices + STATS_TAIL])])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (entropies, source) = (&inputs[0].data, &inputs[1].data);
        let [limited, lengths] = self.optional(inputs.len(), |index| inputs[index]);
        let tokens = entropies.len();
        let time = lengths.map_or(tokens, |lengths| tokens / lengths.data.len());
        let inside = |token: usize| lengths.is_none_or(|l| ((token % time) as f64) < l.data[token / time]);
        let inside: Vec<usize> = (0..tokens).filter(|token| inside(*token)).collect();
        let takes = |token: usize, choice: usize| match self.source {
            Source::Inverse => source[token] != f64::from(NONE),
            _ => source[token] == choice as f64,
        };
        let load = |choice: usize| match self.source {
            Source::Starts => source[choice + 1] - source[choice],
            _ => inside.iter().filter(|token| takes(**token, choice)).count() as f64,
        };
        let mut sums: Vec<f64> = (0..self.num_choices).map(load).collect();
        sums.push(limited.map_or(0.0, |limited| source[self.num_choices] - limited.data[self.num_choices]));
        sums.push(inside.iter().map(|token| entropies[*token]).sum());
        sums.push(inside.len() as f64);
        Ok(vec![Array::new([sums.len()], sums)?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (entropies, source) = (cx.input(0), cx.input(1));
        let tokens = entropies.numel();
        let [limited, lengths] = self.optional(cx.input_count(), |index| cx.input(index));
        let time = lengths.as_ref().map_or(tokens, |lengths| tokens / lengths.numel());
        let there = [limited.is_some(), lengths.is_some()].map(usize::from);
        let dispatch = Dispatch::new(&ROUTER_STATS).constant("SOURCE", self.source as u32);
        let mut dispatch = with_reduction(dispatch, cx.caps(), 256).read(entropies).read(source.clone());
        // An absent input is not read, but its binding needs a buffer.
        dispatch = dispatch.read(limited.unwrap_or_else(|| source.clone())).read(lengths.unwrap_or(source));
        dispatch = dispatch.write(cx.output(0)).param(tokens).param(self.num_choices).param(time);
        let counted = if self.source == Source::Starts { 2 } else { 2 + self.num_choices };
        cx.dispatch(dispatch.param(there[0]).param(there[1]).groups(1).flops((tokens * counted) as u64))
    }
}

/// The conformance cases: a gate with and without a capacity, a router with several choices, and a router that selects tokens.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, time, num_choices, k) in [(1, 1, 1, 1), (3, 11, 5, 2), (2, 257, 31, 3), (1, 31, 256, 1)] {
        for padded in [false, true] {
            let tokens = batch * time;
            let mut feeds = vec![
                Feed::normal_scaled("logits", [tokens, num_choices], 0.0, 3.0).fixed(),
                Feed::normal_scaled("on", [batch, time], 0.3, 6.0).fixed(),
            ];
            if padded {
                let lengths = (0..batch).map(|b| (time - b * 5 % time) as f64);
                feeds.push(Feed::given("lengths", [batch], DType::U32, lengths));
            }
            let name = format!("router_stats [{batch} · {time}, {num_choices}], k {k}, padded: {padded}");
            cases.push(Case::new(name, feeds, move |g, x| {
                let lengths = x.get(2).copied();
                let gate = ops::top_k_gate(g, x[0], None, &GateOptions::new(k))?;
                let slots = ops::reshape(g, gate.experts, [tokens * k])?;
                let sorted = ops::sort_index(g, slots, num_choices)?;
                let limited = ops::limit_capacity(g, sorted, (tokens * k).div_ceil(2 * num_choices))?;
                let sorted_limited = ops::sort_index(g, limited, num_choices)?;
                let all = Assignment::Slots { starts: sorted.starts, limited: None };
                let some = Assignment::Slots { starts: sorted.starts, limited: Some(sorted_limited.starts) };
                let choice = ops::argmax_rows(g, gate.scores, None)?;
                let options = SelectOptions { lengths, ..SelectOptions::default() };
                let selected = ops::select(g, x[1], SelectRule::Top(time.div_ceil(3)), &options)?;
                let on = ops::reshape(g, x[1], [tokens, 1])?;
                Ok(vec![
                    row_entropy(g, gate.scores, lengths)?,
                    binary_entropy(g, on, lengths)?,
                    router_stats(g, gate.scores, all, lengths)?,
                    router_stats(g, gate.scores, some, lengths)?,
                    router_stats(g, gate.scores, Assignment::Choice(choice), lengths)?,
                    router_stats(g, on, Assignment::Selected(selected.inverse), lengths)?,
                ])
            }));
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let scores = g.input("scores", [6, 4], DType::F32)?;
        let starts = g.input("starts", [4], DType::U32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(router_stats(&mut g, scores, Assignment::Slots { starts, limited: None }, None));
        assert_eq!(message, "router_stats: the assignment is u32[4], expected u32[5]");
        let message = refused(router_stats(&mut g, scores, Assignment::Choice(starts), None));
        assert_eq!(message, "router_stats: the assignment is u32[4], expected u32[6]");
        let right = g.input("right", [5], DType::U32)?;
        let message =
            refused(router_stats(&mut g, scores, Assignment::Slots { starts: right, limited: Some(starts) }, None));
        assert_eq!(message, "router_stats: limited is u32[4], expected u32[5]");
        Ok(())
    }
}
