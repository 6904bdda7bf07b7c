//! The gate of a mixture of experts: scores, the best experts of each token, and their weights.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{AdapterClass, Caps, Dispatch, Kernel, Launch, Snippet, View, kernel};
use crate::ops::rows::{RowVariant, reduction};
use crate::shape::TensorType;
use std::cmp::Ordering;

static COMMON: Snippet = kernel!("common/gate");
static GATE: [Kernel; 2] = [kernel!("experts/gate_threads"), kernel!("experts/gate_workgroup")];
static GATE_BACKWARD: [Kernel; 2] =
    [kernel!("experts/gate_backward_threads"), kernel!("experts/gate_backward_workgroup")];

/// The most experts a gate chooses from: an invocation each, in the smallest workgroup that every adapter allows.
const MOST_EXPERTS: usize = 256;
/// The most groups: a bit each.
const MOST_GROUPS: usize = 32;
/// The most turns that one invocation's loops take: Mesa's drivers for the CPU leave loops after 65,535 in all.
const MOST_TURNS: usize = 1 << 15;
/// What is added to the sum that weights are divided by.
const EPSILON: f64 = 1e-20;

/// What the scores of experts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateScores {
    /// The softmax of the logits.
    Softmax,
    /// The logistic function of each logit.
    Sigmoid,
}

/// Experts in groups of equal size, of which only the best stay for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateGroups {
    /// How many groups there are, at most 32.
    pub count: usize,
    /// How many of them stay.
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
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// The `k` largest of a softmax as they are.
    #[must_use]
    pub fn new(k: usize) -> Self {
        Self { k, scores: GateScores::Softmax, renormalise: false, scale: 1.0, groups: None }
    }
}

/// What a gate gives for T tokens, E experts and K choices.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The weights of the chosen experts, (T, K) f32.
    pub weights: Tensor,
    /// The chosen experts, the best choice first, (T, K) u32.
    pub experts: Tensor,
    /// The scores of all experts, (T, E) f32.
    pub scores: Tensor,
    /// ln Σ e^logit of each token, (T) f32.
    pub lse: Tensor,
}

/// Chooses experts by `logits` (T, E) f32, all in one kernel; of equal choices the lower index comes first.
///
/// `bias` (E) f32 is added to the scores for the choice only, and has no gradient. E is at most 256.
///
/// # Errors
/// [`Error::Shape`] if logits or bias have another type, there are too many experts or groups, or `k` experts can't be
/// chosen from those that stay.
pub fn top_k_gate(g: &mut Graph, logits: Tensor, bias: Option<Tensor>, options: &GateOptions) -> Result<Gate> {
    top_k_gate_by(g, logits, bias, options, None)
}

/// [`top_k_gate`] by a given variant of its kernels.
pub(crate) fn top_k_gate_by(
    g: &mut Graph,
    logits: Tensor,
    bias: Option<Tensor>,
    options: &GateOptions,
    variant: Option<RowVariant>,
) -> Result<Gate> {
    let inputs: Vec<Tensor> = std::iter::once(logits).chain(bias).collect();
    match g.put(TopKGate { options: *options, variant }, &inputs)?[..] {
        [weights, experts, scores, lse] => Ok(Gate { weights, experts, scores, lse }),
        _ => Err(Error::Graph("top_k_gate gave other outputs than it has".into())),
    }
}

/// Scores `s` of experts, the K best of `choice`, and their weights.
///
/// ```text
/// s = softmax(logits) or 1 / (1 + e^−logits);  choice = s + bias
/// of groups only those stay whose two best choices have the largest sums
/// weights = scale · s[experts], over (Σ s[experts] + 1e-20) with `renormalise`
/// ```
///
/// Inputs: logits (T, E), perhaps a bias (E). Outputs: weights (T, K), experts (T, K) u32, s (T, E), ln Σ e^logits (T); what
/// nothing reads is not written. Gradients: [`GateBackward`]; the choice has none, and so has the bias.
///
/// Without bias and groups the choice is the logit itself, which has the same order and fewer ties.
#[derive(Debug)]
struct TopKGate {
    options: GateOptions,
    variant: Option<RowVariant>,
}

impl Op for TopKGate {
    fn name(&self) -> &'static str {
        "top_k_gate"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [tokens, experts] = sizes("top_k_gate", &inputs[0])?;
        self.options.check(experts)?;
        if let Some(bias) = inputs.get(1).filter(|bias| **bias != TensorType::f32([experts])) {
            return Err(Error::shape("top_k_gate", format!("the bias is {bias} for {experts} experts")));
        }
        let k = self.options.k;
        Ok(vec![
            TensorType::f32([tokens, k]),
            TensorType::new([tokens, k], DType::U32),
            inputs[0].clone(),
            TensorType::f32([tokens]),
        ])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut gradients = vec![None; cx.inputs.len()];
        if !cx.needed[0] {
            return Ok(gradients);
        }
        let [dweights, _, dscores, dlse] = [0, 1, 2, 3].map(|output| cx.upstream[output]);
        let op = GateBackward {
            options: self.options,
            weights: dweights.is_some(),
            scores: dscores.is_some(),
            lse: dlse.is_some(),
            variant: self.variant,
        };
        let experts = dweights.map(|_| cx.outputs[1]);
        let inputs: Vec<Tensor> =
            [Some(cx.inputs[0]), experts, dweights, dscores, dlse].into_iter().flatten().collect();
        gradients[0] = Some(cx.graph.put1(op, &inputs)?);
        Ok(gradients)
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (logits, k) = (inputs[0], self.options.k);
        let tokens = logits.shape.rows();
        let mut scores = Array::zeros(logits.shape.clone());
        let [mut weights, mut experts] = [0, 1].map(|_| Array::zeros([tokens, k]));
        let mut lse = Array::zeros([tokens]);
        for t in 0..tokens {
            let row = self.options.score(logits.row(t));
            lse.data[t] = log_sum_exp(logits.row(t));
            let chosen = self.options.choose(logits.row(t), &row, inputs.get(1).map(|bias| bias.data.as_slice()));
            let factor = self.options.factor(chosen.iter().map(|&e| row[e]).sum());
            for (i, &e) in chosen.iter().enumerate() {
                experts.row_mut(t)[i] = e as f64;
                weights.row_mut(t)[i] = factor * row[e];
            }
            scores.row_mut(t).copy_from_slice(&row);
        }
        Ok(vec![weights, experts, scores, lse])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let [tokens, experts] = [logits.shape.rows(), logits.shape.last()];
        // What is absent is not read, but a binding must be there.
        let bias = if cx.input_count() > 1 { cx.input(1) } else { logits.clone() };
        let groups = self.options.groups.unwrap_or(GateGroups { count: 1, keep: 1 });
        let mut dispatch = self.options.over_tokens(cx.caps(), &GATE, self.variant, tokens, experts);
        dispatch = dispatch
            .constant("BIASED", cx.input_count() > 1)
            .constant("GROUPS", groups.count as u32)
            .constant("KEPT", groups.keep as u32)
            .read(logits)
            .read(bias);
        for (output, name) in ["WITH_WEIGHTS", "WITH_EXPERTS", "WITH_SCORES", "WITH_LSE"].into_iter().enumerate() {
            let used = cx.output_used(output);
            let spare = |cx: &mut Launch<'_>| cx.scratch([1], cx.output(output).dtype);
            let view: View = if used { cx.output(output) } else { spare(cx) };
            dispatch = dispatch.constant(name, used).write(view);
        }
        cx.dispatch(dispatch)
    }
}

/// The gradient of [`TopKGate`] by its logits `z`, from those of weights, scores and lse, as far as they are there.
///
/// ```text
/// dchosen_i = scale · dweights_i; renormalised scale / S · (dweights_i − Σ_j dweights_j s_j / S),  S = Σ_i s_i + 1e-20
/// ds = dscores + dchosen at the chosen experts
/// dz = s (ds − Σ s ds) of a softmax, s (1 − s) ds of a sigmoid; plus dlse · softmax(z)
/// ```
///
/// Inputs: logits (T, E), then those that are there of experts (T, K) u32 with dweights (T, K), dscores (T, E), dlse (T).
/// For the renormalised softmax this is `w_i (dw_i − Σ_j w_j dw_j)` at the chosen experts, and nothing at the others.
#[derive(Debug)]
struct GateBackward {
    options: GateOptions,
    weights: bool,
    scores: bool,
    lse: bool,
    variant: Option<RowVariant>,
}

impl GateBackward {
    /// Experts, dweights, dscores and dlse, as far as they are there.
    fn sort<T>(&self, input: impl Fn(usize) -> T) -> [Option<T>; 4] {
        let mut next = 0;
        [self.weights, self.weights, self.scores, self.lse].map(|there| {
            there.then(|| {
                next += 1;
                input(next)
            })
        })
    }
}

impl Op for GateBackward {
    fn name(&self) -> &'static str {
        "gate_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [tokens, experts] = sizes("gate_backward", &inputs[0])?;
        self.options.check(experts)?;
        let k = self.options.k;
        let wanted = [
            TensorType::new([tokens, k], DType::U32),
            TensorType::f32([tokens, k]),
            inputs[0].clone(),
            TensorType::f32([tokens]),
        ];
        for (given, wanted) in self.sort(|i| inputs[i].clone()).into_iter().zip(wanted) {
            if let Some(given) = given.filter(|given| *given != wanted) {
                return Err(Error::shape("gate_backward", format!("expected {wanted}, got {given}")));
            }
        }
        Ok(vec![inputs[0].clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let logits = inputs[0];
        let [experts, dweights, dscores, dlse] = self.sort(|i| inputs[i]);
        let mut out = Array::zeros(logits.shape.clone());
        for t in 0..logits.shape.rows() {
            let z = logits.row(t);
            let s = self.options.score(z);
            let mut ds = dscores.map_or(vec![0.0; s.len()], |d| d.row(t).to_vec());
            if let (Some(experts), Some(dweights)) = (experts, dweights) {
                let chosen: Vec<usize> = experts.row(t).iter().map(|&e| e as usize).collect();
                let dweights = dweights.row(t);
                let total: f64 = chosen.iter().map(|&e| s[e]).sum();
                let factor = self.options.factor(total);
                let weighted: f64 = chosen.iter().zip(dweights).map(|(&e, d)| s[e] * d).sum();
                let middle = if self.options.renormalise { weighted / (total + EPSILON) } else { 0.0 };
                for (&e, d) in chosen.iter().zip(dweights) {
                    ds[e] += factor * (d - middle);
                }
            }
            let level: f64 = s.iter().zip(&ds).map(|(s, d)| s * d).sum();
            let lse = log_sum_exp(z);
            for (e, out) in out.row_mut(t).iter_mut().enumerate() {
                *out = match self.options.scores {
                    GateScores::Softmax => s[e] * (ds[e] - level),
                    GateScores::Sigmoid => s[e] * logistic(-z[e]) * ds[e],
                };
                *out += dlse.map_or(0.0, |d| d.data[t] * (z[e] - lse).exp());
            }
        }
        Ok(vec![out])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let logits = cx.input(0);
        let [tokens, experts] = [logits.shape.rows(), logits.shape.last()];
        let dispatch = self.options.over_tokens(cx.caps(), &GATE_BACKWARD, self.variant, tokens, experts);
        let mut dispatch = dispatch
            .constant("HAS_DWEIGHTS", self.weights)
            .constant("HAS_DSCORES", self.scores)
            .constant("HAS_DLSE", self.lse)
            .read(logits.clone());
        for given in self.sort(|i| cx.input(i)) {
            dispatch = dispatch.read(given.unwrap_or_else(|| logits.clone()));
        }
        cx.dispatch(dispatch.write(cx.output(0)))
    }
}

impl GateOptions {
    /// Refuses options that don't fit the number of experts.
    fn check(&self, experts: usize) -> Result<()> {
        let refuse = |what: String| Err(Error::shape("top_k_gate", what));
        let groups = self.groups.unwrap_or(GateGroups { count: 1, keep: 1 });
        if experts > MOST_EXPERTS {
            return refuse(format!("{experts} experts: a gate chooses from at most {MOST_EXPERTS}"));
        }
        if groups.count == 0 || groups.count > MOST_GROUPS || !experts.is_multiple_of(groups.count) {
            let what = "they must be equal, and at most";
            return refuse(format!("{experts} experts in {} groups: {what} {MOST_GROUPS}", groups.count));
        }
        if groups.keep == 0 || groups.keep > groups.count {
            return refuse(format!("{} of {} groups can't be kept", groups.keep, groups.count));
        }
        let left = experts / groups.count * groups.keep;
        if self.k == 0 || self.k > left {
            return refuse(format!("{} experts a token can't be chosen from {left}", self.k));
        }
        if !self.scale.is_finite() {
            return refuse(format!("the scale of the weights is {}, which is not finite", self.scale));
        }
        Ok(())
    }

    /// The scores of a token's experts.
    fn score(&self, logits: &[f64]) -> Vec<f64> {
        let lse = log_sum_exp(logits);
        logits
            .iter()
            .map(|&z| match self.scores {
                GateScores::Softmax => (z - lse).exp(),
                GateScores::Sigmoid => logistic(z),
            })
            .collect()
    }

    /// What the chosen scores, of this sum, are multiplied by.
    fn factor(&self, sum: f64) -> f64 {
        f64::from(self.scale) / if self.renormalise { sum + EPSILON } else { 1.0 }
    }

    /// A token's experts, the best first.
    fn choose(&self, logits: &[f64], scores: &[f64], bias: Option<&[f64]>) -> Vec<usize> {
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
        // Stable, so that of equals the lower index comes first.
        left.sort_by(|&a, &b| descending(choice[a], choice[b]));
        left.truncate(self.k);
        left
    }

    /// A dispatch over tokens, with what both kernels of a pair share.
    fn over_tokens(
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
        let variant = if self.k * experts > MOST_TURNS { RowVariant::Workgroup } else { variant };
        let dispatch = match (variant, enough, caps.class) {
            // As wide as the vectors of the processor, so that few tokens still fill all its cores.
            (RowVariant::Threads, _, AdapterClass::Cpu) => by_threads(kernels, tokens, 8),
            (RowVariant::Threads, _, AdapterClass::Gpu) => by_threads(kernels, tokens, 64),
            (RowVariant::Subgroup, Some(lanes), _) => by_group(kernels, tokens, lanes, RowVariant::Subgroup),
            _ => by_group(kernels, tokens, lanes, RowVariant::Workgroup),
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

fn by_group(kernels: &'static [Kernel; 2], tokens: usize, lanes: u32, variant: RowVariant) -> Dispatch {
    Dispatch::new(&kernels[1]).constant("LANES", lanes).snippet(reduction(variant)).groups(tokens)
}

/// Tokens and experts of the logits.
fn sizes(op: &str, logits: &TensorType) -> Result<[usize; 2]> {
    match (logits.dtype, logits.shape.dims()) {
        (DType::F32, &[tokens, experts]) if tokens * experts > 0 => Ok([tokens, experts]),
        _ => Err(Error::shape(op, format!("expected the logits of experts as an f32 matrix, got {logits}"))),
    }
}

fn log_sum_exp(logits: &[f64]) -> f64 {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    top + logits.iter().map(|z| (z - top).exp()).sum::<f64>().ln()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A total order even of NaNs; both zeros are equal.
pub(in crate::ops) fn descending(a: f64, b: f64) -> Ordering {
    (b + 0.0).total_cmp(&(a + 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights and experts of one token.
    fn choose(logits: &[f64], bias: Option<&[f64]>, options: GateOptions) -> (Vec<f64>, Vec<f64>) {
        let row = |values: &[f64]| Array { shape: [values.len()].into(), data: values.to_vec() };
        let logits = Array { shape: [1, logits.len()].into(), data: logits.to_vec() };
        let inputs: Vec<Array> = std::iter::once(logits).chain(bias.map(row)).collect();
        let out = TopKGate { options, variant: None }.reference(&inputs.iter().collect::<Vec<_>>()).unwrap();
        (out[0].data.clone(), out[1].data.clone())
    }

    #[test]
    fn the_best_come_first_and_of_equals_the_lower_index() {
        let options = GateOptions { renormalise: true, ..GateOptions::new(3) };
        let (weights, experts) = choose(&[1.0, 2.0, -3.0, 2.0, 1.0], None, options);
        assert_eq!(experts, [1.0, 3.0, 0.0]);
        // The softmax over the chosen logits.
        let z = 2.0 + (-1.0_f64).exp();
        for (weight, expected) in weights.iter().zip([1.0 / z, 1.0 / z, (-1.0_f64).exp() / z]) {
            approx::assert_relative_eq!(*weight, expected, epsilon = 1e-15);
        }
    }

    #[test]
    fn groups_and_bias_choose_and_scores_weigh() {
        let options = GateOptions {
            k: 2,
            scores: GateScores::Sigmoid,
            renormalise: true,
            scale: 2.5,
            groups: Some(GateGroups { count: 3, keep: 1 }),
        };
        // The middle group has the best pair, the first the best single expert; the bias turns the order of the pair.
        let logits = [3.0, -9.0, 1.0, 1.1, -1.0, -1.0];
        let (weights, experts) = choose(&logits, Some(&[0.0, 0.0, 0.1, 0.0, 0.0, 0.0]), options);
        assert_eq!(experts, [2.0, 3.0]);
        let (a, b) = (logistic(1.0), logistic(1.1));
        approx::assert_relative_eq!(weights[0], 2.5 * a / (a + b), epsilon = 1e-15);
        approx::assert_relative_eq!(weights[1], 2.5 * b / (a + b), epsilon = 1e-15);
        // Groups that lose are out even where every choice is negative.
        let (_, experts) = choose(&logits, Some(&[-5.0; 6]), options);
        assert_eq!(experts, [3.0, 2.0]);
    }

    #[test]
    fn misfits_are_refused_by_name() {
        let mut g = Graph::new();
        let logits = g.input("logits", [5, 12], DType::F32).unwrap();
        let many = g.input("many", [5, 257], DType::F32).unwrap();
        let bias = g.input("bias", [11], DType::F32).unwrap();
        let mut refused = |logits, bias, options: GateOptions| {
            top_k_gate(&mut g, logits, bias, &options).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
        };
        let two = GateOptions::new(2);
        assert_eq!(refused(many, None, two), "top_k_gate: 257 experts: a gate chooses from at most 256");
        assert_eq!(refused(logits, Some(bias), two), "top_k_gate: the bias is f32[11] for 12 experts");
        assert_eq!(refused(logits, None, GateOptions::new(0)), "top_k_gate: 0 experts a token can't be chosen from 12");
        assert_eq!(
            refused(logits, None, GateOptions::new(13)),
            "top_k_gate: 13 experts a token can't be chosen from 12"
        );
        let groups = |count, keep| GateOptions { groups: Some(GateGroups { count, keep }), ..GateOptions::new(5) };
        assert_eq!(refused(logits, None, groups(3, 1)), "top_k_gate: 5 experts a token can't be chosen from 4");
        assert_eq!(refused(logits, None, groups(3, 4)), "top_k_gate: 4 of 3 groups can't be kept");
        let message = "top_k_gate: 12 experts in 5 groups: they must be equal, and at most 32";
        assert_eq!(refused(logits, None, groups(5, 4)), message);
        let message = "top_k_gate: expected the logits of experts as an f32 matrix, got f32[11]";
        assert_eq!(refused(bias, None, two), message);
        assert_eq!(refused(logits, None, GateOptions { scale: f32::NAN, ..two }).matches("not finite").count(), 1);
    }

    #[test]
    fn logits_that_are_no_numbers_have_an_order_too() {
        let logits = Array::from_fn([64, 240], |i| if i % 3 == 0 { f64::NAN } else { (i as f64).sin() });
        let options = GateOptions { groups: Some(GateGroups { count: 8, keep: 3 }), ..GateOptions::new(8) };
        for options in [GateOptions::new(8), options] {
            let out = TopKGate { options, variant: None }.reference(&[&logits]).unwrap();
            assert!(out[1].data.iter().all(|&expert| expert < 240.0));
        }
        assert_eq!(descending(-0.0, 0.0), Ordering::Equal);
        let (_, experts) = choose(&[-0.0, -1.0, 0.0], None, GateOptions::new(2));
        assert_eq!(experts, [0.0, 2.0]);
    }
}
