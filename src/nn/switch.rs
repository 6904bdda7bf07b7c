//! Experts of which each token has one, the best: Fedus et al., "Switch Transformers", arXiv 2101.03961.

use super::dense::{LinearConfig, dropout, linear};
use super::experts::{GateOutput, jittered};
use super::feed_forward::FeedForwardUse;
use super::router_stats::{RouterDecision, RouterStats};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Initial, Tensor};
use crate::ops::{self, Activation, Assignment, GateOptions};

/// A network of plain experts in place of a dense one: of each token `p · (f(x W₁ᵀ) W₂ᵀ)` by its best expert, whose probability is p.
///
/// An expert takes at most `capacity` tokens of each row of a batch, those in front, padding counted; the others get nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwitchExperts {
    /// The module, after the block's prefix.
    pub module: &'static str,
    /// Experts.
    pub count: usize,
    /// Features inside an expert.
    pub d_ff: usize,
    /// The most tokens of a row that an expert takes.
    pub capacity: usize,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// As [`Experts::jitter`](super::Experts::jitter).
    pub jitter: f32,
    /// The activation.
    pub activation: Activation,
    /// The standard deviations of fresh weights: of the router, of the first layers, of the second ones.
    pub std: [f64; 3],
}

impl SwitchExperts {
    /// The network of `x (B, T, C)` under `prefix`, and what its gate did. Masks and lengths count for nothing.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(&self, g: &mut Graph, prefix: &str, x: Tensor, with: FeedForwardUse) -> Result<(Tensor, GateOutput)> {
        let Self { count, d_ff, capacity, .. } = *self;
        let [batch, time, d_model] = g.shape(x).expect("experts, x (B, T, C)")?;
        let (rows, module) = (batch * time, format!("{prefix}.{}", self.module));
        let flat = ops::reshape(g, x, [rows, d_model])?;
        let flat = jittered(g, prefix, flat, self.jitter, with.seed)?;
        let router = LinearConfig { bias: self.router_bias, ..LinearConfig::router() }.with_std(self.std[0]);
        let logits = linear(g, &format!("{module}.router.classifier"), flat, count, router)?;
        let gate = ops::top_k_gate(g, logits, None, &GateOptions::new(1))?;
        // Experts of each row by numbers of their own, to count and to limit them there.
        let by_text = ops::reshape(g, gate.experts, [batch, time])?;
        let by_text = ops::offset_ids(g, by_text, count as u32)?;
        let by_text = ops::reshape(g, by_text, [rows])?;
        let by_text = ops::sort_index(g, by_text, batch * count)?;
        let text_counts = ops::load_counts(g, by_text)?;
        let all = ops::route(g, gate.experts, count)?;
        let (mut chosen, mut routing) = (gate.experts, all);
        if capacity < time {
            let limited = ops::limit_capacity(g, by_text, capacity)?;
            let numbers =
                Array::from_fn([batch * count + 1, 1], |i| (if i == batch * count { count } else { i % count }) as f64);
            let numbers = g.constant("experts", numbers, DType::U32);
            chosen = ops::gather_words(g, numbers, limited)?;
            routing = ops::route(g, chosen, count)?;
        }
        let counts = ops::load_counts(g, all.sorted)?;
        let limited = (capacity < time).then_some(routing.sorted.starts);
        let slots = Assignment::Slots { starts: all.sorted.starts, limited };
        let sums = RouterStats::new(g, RouterDecision::Experts, gate.scores, slots, None)?;
        // The mean probabilities of each row.
        let scores = ops::reshape(g, gate.scores, [batch, time, count])?;
        let share = Array::from_fn([batch, 1, time], |_| 1.0 / time as f64);
        let share = g.constant("share", share, DType::F32);
        let means = ops::matmul(g, share, scores)?;
        let means = ops::reshape(g, means, [batch * count])?;
        let mut stack = |part: &str, shape: [usize; 3], std: f64| {
            let name = format!("{module}.experts.expert_*.{part}.weight");
            g.matrix(&name, shape, Initial::Normal(std))
        };
        let (up, down) =
            (stack("wi", [count, d_ff, d_model], self.std[1])?, stack("wo", [count, d_model, d_ff], self.std[2])?);
        let up = ops::grouped_linear(g, flat, up, &routing)?;
        // The factor of a gated expert, of which dropout takes some away.
        let ones = ops::zeros(g, [rows, d_ff])?;
        let ones = ops::add_scalar(g, ones, 1.0)?;
        let ones = dropout(g, ones, with.dropout, with.seed, with.dropout_salt)?;
        let y = ops::expert_output(g, [up, ones], down, gate.weights, &routing, self.activation)?;
        let y = ops::reshape(g, y, [batch, time, d_model])?;
        let by_text = Some([text_counts, means]);
        let (scores, lse) = (gate.scores, gate.lse);
        Ok((y, GateOutput { scores, lse, counts, chosen, bias: None, share: None, by_text, sums }))
    }
}

/// `E² · mean over rows and experts of f · p`, f the share of a row's tokens that chose the expert and p its mean probability there, over all of
/// these layers: of each the slots `(B · E)` and the mean probabilities `(B · E)` by row and expert.
pub(super) fn balance_by_text(g: &mut Graph, gates: &[GateOutput], parts: &[[Tensor; 2]]) -> Result<Option<Tensor>> {
    let (Some(first), Some(&[mut counts, mut means])) = (gates.first(), parts.first()) else { return Ok(None) };
    let [tokens, experts] = g.shape(first.scores).expect("scores of experts")?;
    for [more_counts, more_means] in &parts[1..] {
        counts = ops::add(g, counts, *more_counts)?;
        means = ops::add(g, means, *more_means)?;
    }
    let products = ops::mul(g, means, counts)?;
    let sum = ops::sum(g, products)?;
    let layers = parts.len() as f32;
    // Rows are `tokens / T`: the mean over them and the counts' divisor, T, make up all tokens.
    Ok(Some(ops::scale(g, sum, experts as f32 / (tokens as f32 * layers * layers))?))
}
