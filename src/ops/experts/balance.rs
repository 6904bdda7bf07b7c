//! Load balancing of experts: loads, auxiliary losses, and a bias that follows the loads.

use crate::case::{Case, Feed, Tolerance, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Add, Alias, Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::arithmetic::reduce::{mean, sum, sum_rows};
use crate::ops::rows;
use crate::ops::{self, GateOptions};
use crate::ops::{SortedIndex, mul, row_entropy};
use crate::shape::TensorType;

static SEGMENT_COUNTS: Kernel = kernel!("experts/segment_counts");
static UPDATE_BIAS: Kernel = kernel!("experts/update_bias");
static LOAD_FACTORS: Kernel = kernel!("experts/load_factors");

/// `counts[e] = starts[e + 1] − starts[e]`: the number of slots of each expert, (E) f32; `sorted` are the slots sorted by expert. No
/// gradient: counts are integers.
///
/// # Errors
/// [`Error::Shape`] if the index was not sorted by as many rows as it says.
pub fn load_counts(g: &mut Graph, sorted: SortedIndex) -> Result<Tensor> {
    g.put1(LoadCounts { experts: sorted.rows }, &[sorted.starts])
}

/// `E · Σ_e f_e P_e` over one or more layers: `f_e` the slots of expert e for each token, `P_e` its mean score; a
/// scalar.
///
/// `scores` (T, E) f32 and `counts` (E) f32 are those of each layer, where a token chooses `k` experts; layers with more
/// tokens count more. Tokens without slots (padding) have scores of zero. The loss of even loads is k.
///
/// Gradient: `dscores[t, e] = dloss · E · f_e / T`, with T the tokens of all layers that have slots; the counts have none.
///
/// Fedus et al., `Switch Transformers`, 2021 (arXiv 2101.03961); over all layers at once as in Hugging Face's Mixtral.
///
/// # Errors
/// [`Error::Shape`] if there are no layers, or scores and counts do not fit together.
pub fn load_balance_loss(g: &mut Graph, scores: &[Tensor], counts: &[Tensor], k: usize) -> Result<Tensor> {
    let refuse = |what: String| Err(Error::shape("load_balance_loss", what));
    let (Some(first), true) = (scores.first(), scores.len() == counts.len()) else {
        return refuse(format!("there are scores of {} layers, but counts of {}", scores.len(), counts.len()));
    };
    let experts = g.shape(*first).last();
    for (scores, counts) in scores.iter().zip(counts) {
        let (scores, counts) = (g.ty(*scores), g.ty(*counts));
        if scores.shape.rank() != 2 || scores.shape.last() != experts || *counts != TensorType::f32([experts]) {
            return refuse(format!("scores {scores} and counts {counts} do not fit {experts} experts"));
        }
    }
    let (mut shares, mut loads) = (sum_rows(g, *first)?, counts[0]);
    for (scores, counts) in scores.iter().zip(counts).skip(1) {
        let share = sum_rows(g, *scores)?;
        shares = g.put1(Add, &[shares, share])?;
        loads = g.put1(Add, &[loads, *counts])?;
    }
    let [factors, _] = load_factors(g, loads, k)?;
    let products = mul(g, shares, factors)?;
    sum(g, products)
}

/// The weights of each expert's summed scores in [`load_balance_loss`], `E · counts[e] / tokens²` (E) f32, and `1 / tokens` (1) f32, where
/// `tokens = max(1, Σ counts / k)`, since each token has `k` slots. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the counts are no f32 vector.
pub fn load_factors(g: &mut Graph, counts: Tensor, k: usize) -> Result<[Tensor; 2]> {
    let found = g.put(LoadFactors { k }, &[counts])?;
    Ok([found[0], found[1]])
}

/// `mean(lse²)`: keeps the logits of a gate small; a scalar. `lse` (T) f32 is that of [`top_k_gate`](super::top_k_gate).
///
/// Gradient: `dlse = 2 dloss lse / T`.
///
/// Zoph et al., `ST-MoE`, 2022 (arXiv 2202.08906).
///
/// # Errors
/// [`Error::Shape`] if `lse` is not f32 or empty.
pub fn router_z_loss(g: &mut Graph, lse: Tensor) -> Result<Tensor> {
    let squares = mul(g, lse, lse)?;
    mean(g, squares)
}

/// `bias[e] += rate · sign(mean of counts − counts[e])`, in place; returns the updated bias. Both (E) f32; no gradient.
///
/// Call it once per step with the loads of the step: the gate then chooses experts with too few tokens more often, without a loss.
///
/// Wang et al., `Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts`, 2024 (arXiv 2408.15664), with a
/// rate of 0.001.
///
/// # Errors
/// [`Error::Shape`] if bias and counts differ; [`Error::Input`] if the rate is not finite.
pub fn update_bias(g: &mut Graph, bias: Tensor, counts: Tensor, rate: f32) -> Result<Tensor> {
    if !rate.is_finite() {
        return Err(Error::input("update_bias rate", format!("{rate} is not finite")));
    }
    g.put1(UpdateBias { rate }, &[bias, counts])
}

/// The mean of [`row_entropy`] over tokens, a scalar: ln E for uniform scores, 0 for one-hot scores. `scores` (T, E) f32 are not negative.
/// For reports; no gradient.
///
/// # Errors
/// [`Error::Shape`] if the scores are no f32 matrix.
pub fn routing_entropy(g: &mut Graph, scores: Tensor) -> Result<Tensor> {
    let entropies = row_entropy(g, scores, None)?;
    mean(g, entropies)
}

/// See [`load_counts`]. Input: starts (E + 1) u32.
#[derive(Debug)]
struct LoadCounts {
    experts: usize,
}

impl Op for LoadCounts {
    fn name(&self) -> &'static str {
        "load_counts"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let starts = TensorType::new([self.experts.saturating_add(1)], DType::U32);
        if inputs[0] != starts {
            let what = format!("expected {starts} for {} experts, got {}", self.experts, inputs[0]);
            return Err(Error::shape("load_counts", what));
        }
        Ok(vec![TensorType::f32([self.experts])])
    }

    fn gradient(&self, _cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let starts = &inputs[0].data;
        Ok(vec![Array::from_fn([self.experts], |e| starts[e + 1] - starts[e])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let dispatch = Dispatch::new(&SEGMENT_COUNTS).read(cx.input(0)).write(cx.output(0));
        cx.dispatch(dispatch.param(self.experts).groups_for(self.experts, 64))
    }
}

/// See [`load_factors`].
#[derive(Debug)]
struct LoadFactors {
    k: usize,
}

impl Op for LoadFactors {
    fn name(&self) -> &'static str {
        "load_factors"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let counts = &inputs[0];
        if counts.dtype != DType::F32 || counts.shape.rank() != 1 || counts.shape.numel() == 0 || self.k == 0 {
            let what = format!("expected f32 counts of experts and a k of 1 or more, got {counts} and {}", self.k);
            return Err(Error::shape("load_factors", what));
        }
        Ok(vec![counts.clone(), TensorType::f32([1])])
    }

    fn gradient(&self, _cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let counts = &inputs[0].data;
        let tokens = (counts.iter().sum::<f64>() / self.k as f64).max(1.0);
        let factors = Array::from_fn([counts.len()], |e| counts.len() as f64 * counts[e] / (tokens * tokens));
        Ok(vec![factors, Array::new([1], vec![1.0 / tokens])?])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let experts = cx.input(0).numel();
        let dispatch = Dispatch::new(&LOAD_FACTORS).read(cx.input(0)).write(cx.output(0)).write(cx.output(1));
        cx.dispatch(dispatch.param(experts).param_f32(self.k as f32).groups_for(experts, 64))
    }
}

/// See [`update_bias`].
#[derive(Debug)]
struct UpdateBias {
    rate: f32,
}

impl Op for UpdateBias {
    fn name(&self) -> &'static str {
        "update_bias"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let types = rows::same_f32("update_bias", inputs, 2)?;
        if types[0].shape.rank() != 1 || types[0].shape.numel() == 0 {
            return Err(Error::shape("update_bias", format!("expected a vector of experts, got {}", types[0])));
        }
        Ok(types)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let counts = &inputs[1].data;
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let moved = |bias: f64, count: f64| match mean.partial_cmp(&count) {
            Some(std::cmp::Ordering::Greater) => bias + f64::from(self.rate),
            Some(std::cmp::Ordering::Less) => bias - f64::from(self.rate),
            _ => bias,
        };
        Ok(vec![inputs[0].zip(inputs[1], moved)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (counts, bias) = (cx.input(1), cx.output(0));
        let experts = bias.numel();
        cx.dispatch(
            Dispatch::new(&UPDATE_BIAS)
                .read(counts)
                .update(bias)
                .param(experts)
                .param_f32(self.rate)
                .groups_for(experts, 64),
        )
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::InPlace(0))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = loads();
    cases.extend(losses());
    cases.extend(factors());
    cases.extend(biases());
    cases
}

fn slots(count: usize, experts: usize) -> Feed {
    Feed::given("slots", [count], DType::U32, mixed(count, experts))
}

/// Counts and capacities, exactly; some slots name no expert.
fn loads() -> Vec<Case> {
    let mut cases = Vec::new();
    for (count, experts, capacity) in [(1, 1, 1), (31, 3, 4), (33, 8, 0), (257, 11, 31), (1000, 256, 3)] {
        for none in [0, 2] {
            let name = format!("load_counts and limit_capacity {capacity}, {count} slots, {experts} experts + {none}");
            cases.push(
                Case::new(name, vec![slots(count, experts + none)], move |g, x| {
                    let sorted = ops::sort_index(g, x[0], experts)?;
                    let limited = ops::limit_capacity(g, sorted, capacity)?;
                    let kept = ops::sort_index(g, limited, experts)?;
                    Ok(vec![load_counts(g, sorted)?, limited, load_counts(g, kept)?])
                })
                .tolerance(Tolerance::EXACT, Tolerance::EXACT),
            );
        }
    }
    cases
}

/// Both losses of one gate and of two, through to the logits; the entropy.
fn losses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tokens, experts, k) in [(1, 1, 1), (31, 8, 2), (257, 3, 1), (33, 64, 8)] {
        let feeds = vec![Feed::normal("logits", [tokens, experts]), Feed::normal("more", [2 * tokens, experts])];
        let name = format!("load_balance_loss and router_z_loss [{tokens}, {experts}], k {k}");
        cases.push(Case::new(name, feeds, move |g, x| {
            let (mut scores, mut counts, mut lse) = (Vec::new(), Vec::new(), Vec::new());
            for &logits in x {
                let gate = ops::top_k_gate(g, logits, None, &GateOptions::new(k))?;
                let count = g.shape(gate.experts).numel();
                let slots = ops::reshape(g, gate.experts, [count])?;
                let sorted = ops::sort_index(g, slots, experts)?;
                scores.push(gate.scores);
                counts.push(load_counts(g, sorted)?);
                lse.push(gate.lse);
            }
            Ok(vec![
                load_balance_loss(g, &scores[..1], &counts[..1], k)?,
                load_balance_loss(g, &scores, &counts, k)?,
                router_z_loss(g, lse[1])?,
            ])
        }));
        let feeds = vec![Feed::normal_scaled("logits", [tokens, experts], 0.0, 8.0).fixed()];
        cases.push(Case::new(format!("routing_entropy [{tokens}, {experts}]"), feeds, |g, x| {
            let scores = ops::softmax(g, x[0])?;
            Ok(vec![routing_entropy(g, scores)?])
        }));
    }
    let sure = Feed::given("scores", [2, 3], DType::F32, [0.0, 1.0, 0.0, 0.5, 0.0, 0.5]);
    cases.push(Case::new("routing_entropy, zeros", vec![sure], |g, x| Ok(vec![routing_entropy(g, x[0])?])));
    cases
}

/// Many tokens, few, and none at all.
fn factors() -> Vec<Case> {
    let case = |(experts, k, most): (usize, usize, usize)| {
        let counts = mixed(experts, most + 1);
        let feeds = vec![Feed::given("counts", [experts], DType::F32, counts)];
        let name = format!("load_factors {experts}, k {k}, up to {most} slots");
        Case::new(name, feeds, move |g, x| Ok(load_factors(g, x[0], k)?.to_vec()))
    };
    [(1, 1, 3), (8, 2, 0), (11, 3, 5), (257, 8, 3000)].into_iter().map(case).collect()
}

/// Counts below, above and at the mean.
fn biases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (experts, mean) in [(1, 7), (3, 5), (31, 100), (257, 3000)] {
        let counts = (0..experts).map(|e| f64::from(mean + (e % 3 - 1) * i32::from(e / 3 < experts / 3)));
        let feeds = vec![
            Feed::normal("bias", [experts as usize]).fixed(),
            Feed::given("counts", [experts as usize], DType::F32, counts),
        ];
        cases.push(Case::new(format!("update_bias {experts}"), feeds, |g, x| {
            // An input can't be updated in place.
            let bias = ops::scale(g, x[0], 0.5)?;
            Ok(vec![update_bias(g, bias, x[1], 0.001)?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Values;
    use crate::ops::{GateOptions, reshape, sort_index, top_k_gate};

    #[test]
    fn the_gradient_of_the_balance_loss_is_the_papers() -> Result<()> {
        // (α E / T) p_j (f_j − Σ f_i p_i), here with α = 1 and f counting both choices.
        let (tokens, experts) = (5, 4);
        let mut g = Graph::new();
        let logits = g.input("logits", [tokens, experts], DType::F32)?;
        let gate = top_k_gate(&mut g, logits, None, &GateOptions::new(2))?;
        let slots = reshape(&mut g, gate.experts, [2 * tokens])?;
        let sorted = sort_index(&mut g, slots, experts)?;
        let counts = load_counts(&mut g, sorted)?;
        let loss = load_balance_loss(&mut g, &[gate.scores], &[counts], 2)?;
        let gradient = g.differentiate(loss, &[logits])?[0].unwrap();
        let z = Array::from_fn([tokens, experts], |i| ((i * i) as f64 * 1.7).sin());
        let values = Values::from([("logits".to_owned(), z)]);
        let [scores, counts, loss, gradient] =
            <[Array; 4]>::try_from(g.evaluate(&values, &[gate.scores, counts, loss, gradient])?).unwrap();
        let f = |e: usize| counts.data[e] / tokens as f64;
        let mut expected = 0.0;
        for t in 0..tokens {
            let p = scores.row(t);
            let level: f64 = (0..experts).map(|e| f(e) * p[e]).sum();
            expected += level * experts as f64 / tokens as f64;
            for e in 0..experts {
                let formula = experts as f64 / tokens as f64 * p[e] * (f(e) - level);
                approx::assert_relative_eq!(gradient.row(t)[e], formula, epsilon = 1e-7);
            }
        }
        approx::assert_relative_eq!(loss.data[0], expected, epsilon = 1e-6);
        assert_eq!(counts.data.iter().sum::<f64>(), 10.0);
        Ok(())
    }

    #[test]
    fn even_loads_have_a_loss_of_the_choices() -> Result<()> {
        let mut g = Graph::new();
        let scores = g.constant("scores", Array::from_fn([6, 3], |_| 1.0 / 3.0), DType::F32);
        let counts = g.constant("counts", Array::from_fn([3], |_| 4.0), DType::F32);
        let loss = load_balance_loss(&mut g, &[scores, scores], &[counts, counts], 2)?;
        approx::assert_relative_eq!(g.evaluate(&Values::new(), &[loss])?[0].data[0], 2.0, epsilon = 1e-6);
        Ok(())
    }

    #[test]
    fn misfits_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let scores = g.input("scores", [5, 4], DType::F32)?;
        let counts = g.input("counts", [3], DType::F32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(load_balance_loss(&mut g, &[scores], &[], 1));
        assert_eq!(message, "load_balance_loss: there are scores of 1 layers, but counts of 0");
        let message = refused(load_balance_loss(&mut g, &[scores], &[counts], 1));
        assert_eq!(message, "load_balance_loss: scores f32[5, 4] and counts f32[3] do not fit 4 experts");
        let message = refused(routing_entropy(&mut g, counts));
        assert_eq!(message, "row_entropy: expected a matrix of scores, got f32[3]");
        let message = refused(update_bias(&mut g, counts, counts, f32::INFINITY));
        assert_eq!(message, "update_bias rate: inf is not finite");
        Ok(())
    }
}
