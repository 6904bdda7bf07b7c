//! The gradient of a gate.

use super::gate_options::{EPSILON, GateOptions, GateScores, log_sum_exp, logistic, sizes};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Op};
use crate::kernel::{Kernel, Launch, kernel};
use crate::ops::rows::RowVariant;
use crate::shape::TensorType;

static GATE_BACKWARD: [Kernel; 2] =
    [kernel!("experts/gate_backward_threads"), kernel!("experts/gate_backward_workgroup")];

/// The gradient of [`top_k_gate`](super::gate::top_k_gate), see there. Inputs: logits (T, E), then those that are there
/// of experts (T, K) u32 with dweights (T, K), dscores (T, E), dlse (T).
#[derive(Debug)]
pub(super) struct GateBackward {
    pub(super) options: GateOptions,
    pub(super) weights: bool,
    pub(super) scores: bool,
    pub(super) lse: bool,
    pub(super) variant: Option<RowVariant>,
}

impl GateBackward {
    /// The optional inputs: experts, dweights, dscores and dlse.
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
