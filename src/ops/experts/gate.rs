//! The gate of a mixture of experts: scores, the best experts of each token, and their weights.

use super::gate_backward::GateBackward;
use super::gate_options::{GateGroups, GateOptions, log_sum_exp, sizes};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Kernel, Launch, View, kernel};
use crate::ops::rows::RowVariant;
use crate::shape::TensorType;

static GATE: [Kernel; 2] = [kernel!("experts/gate_threads"), kernel!("experts/gate_workgroup")];

/// The result of a gate for T tokens, E experts and K chosen experts per token.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// The weights of the chosen experts, (T, K) f32.
    pub weights: Tensor,
    /// The chosen experts, the best first, (T, K) u32.
    pub experts: Tensor,
    /// The scores of all experts, (T, E) f32.
    pub scores: Tensor,
    /// ln Σ e^logit of each token, (T) f32.
    pub lse: Tensor,
}

/// Scores `s` of experts, the K best by `choice`, and their weights, in one kernel; ties go to the lower index.
///
/// ```text
/// s = softmax(z) or 1 / (1 + e^−z);  choice = s + bias
/// only the groups with the largest sums of their two best choices stay
/// weights = scale · s[experts], over (Σ s[experts] + 1e-20) with `renormalise`
/// ```
///
/// Logits z (T, E) f32; `bias` (E) f32 is added only for the choice. E is at most 256. Results that nothing reads are not written. Without
/// bias and groups the choice is the logit itself, which has the same order and fewer ties.
///
/// Gradient with respect to the logits, from those of weights, scores and lse (the choice and the bias have none):
///
/// ```text
/// dchosen_i = scale · dweights_i; renormalised scale / S · (dweights_i − Σ_j dweights_j s_j / S),  S = Σ_i s_i + 1e-20
/// ds = dscores + dchosen at the chosen experts
/// dz = s (ds − Σ s ds) of a softmax, s (1 − s) ds of a sigmoid; plus dlse · softmax(z)
/// ```
///
/// For the renormalised softmax this is `w_i (dw_i − Σ_j w_j dw_j)` at the chosen experts and zero elsewhere.
/// Papers: see [`GateOptions`].
///
/// # Errors
/// [`Error::Shape`] if logits or bias have another type, there are too many experts or groups, or fewer than `k` experts stay.
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
        _ => Err(Error::Graph("top_k_gate returned a wrong number of outputs".into())),
    }
}

/// See [`top_k_gate`]. Inputs: logits (T, E), optionally a bias (E). Outputs: weights (T, K), experts (T, K) u32, s (T, E), ln Σ e^logits (T).
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
            return Err(Error::shape("top_k_gate", format!("the bias is {bias}, but there are {experts} experts")));
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
        // An absent input is not read, but its binding needs a buffer.
        let bias = if cx.input_count() > 1 { cx.input(1) } else { logits.clone() };
        let groups = self.options.groups.unwrap_or(GateGroups { count: 1, keep: 1 });
        let mut dispatch = self.options.over_tokens(cx.caps(), &GATE, self.variant, tokens, experts);
        dispatch = dispatch
            .constant("BIASED", cx.input_count() > 1)
            .constant("GROUPS", groups.count as u32)
            .constant("TOP_GROUPS", groups.keep as u32)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::experts::gate_options::{GateScores, descending, logistic};
    use std::cmp::Ordering;

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
        assert_eq!(refused(many, None, two), "top_k_gate: 257 experts: a gate can choose from at most 256");
        assert_eq!(refused(logits, Some(bias), two), "top_k_gate: the bias is f32[11], but there are 12 experts");
        assert_eq!(
            refused(logits, None, GateOptions::new(0)),
            "top_k_gate: 0 experts per token can't be chosen from 12"
        );
        assert_eq!(
            refused(logits, None, GateOptions::new(13)),
            "top_k_gate: 13 experts per token can't be chosen from 12"
        );
        let groups = |count, keep| GateOptions { groups: Some(GateGroups { count, keep }), ..GateOptions::new(5) };
        assert_eq!(refused(logits, None, groups(3, 1)), "top_k_gate: 5 experts per token can't be chosen from 4");
        assert_eq!(refused(logits, None, groups(3, 4)), "top_k_gate: 4 of 3 groups can't stay");
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
