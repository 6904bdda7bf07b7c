//! The feed-forward network of experts.

use super::linear::grouped_linear;
use super::output::expert_output;
use super::slots::ExpertDispatch;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::Activation;

/// The weights of gated experts, stacked: `gate` and `up` (E, F, C), `down` (E, C, F).
#[derive(Clone, Copy, Debug)]
pub struct ExpertWeights {
    /// From x to the input of the activation.
    pub gate: Tensor,
    /// From x to the factor of the activation.
    pub up: Tensor,
    /// From F back to C.
    pub down: Tensor,
}

/// `y[t] = Σ_k weights[t, k] · E_e(x[t])`, e the expert of slot (t, k), `E_e(x) = (f(x Wgᵀ) ⊙ (x Wuᵀ)) Wdᵀ`.
///
/// x (T, C) f32, weights (T, K) f32, y (T, C). The backward pass keeps x and the inputs of the activations, two tensors (T K, F). Gradients:
/// those of [`grouped_linear`] and [`expert_output`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) that names the operand that does not fit.
pub fn expert_feed_forward(
    g: &mut Graph,
    x: Tensor,
    experts: ExpertWeights,
    weights: Tensor,
    routing: &ExpertDispatch,
    activation: Activation,
) -> Result<Tensor> {
    let gate = grouped_linear(g, x, experts.gate, routing)?;
    let up = grouped_linear(g, x, experts.up, routing)?;
    expert_output(g, [gate, up], experts.down, weights, routing, activation)
}
