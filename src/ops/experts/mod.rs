//! Mixture of Experts: tokens to experts and back, all of it on the GPU.
//!
//! A gate gives every token `K` of `E` experts: its slots `t K + k`. [`route`] sorts the slots by expert, stably, so that each
//! expert's rows lie side by side; grouped products gather a token's row for each of its slots as they load, and the last step sums
//! a token's slots in their order. No slot is found with an atomic counter and no float is added atomically: the same bits on every
//! run. Nothing is dropped, whatever the distribution; a slot whose expert is `E` or more belongs to none and gives zeros.
//!
//! Gale et al., `MegaBlocks`, 2022 (arXiv 2211.15841); Tan et al., `ScatterMoE`, 2024 (arXiv 2403.08245); Guo et al., `SonicMoE`,
//! 2025 (arXiv 2512.14080), whose backward pass needs no expert outputs.

mod combine;
mod linear;
mod output;
mod slots;

pub use linear::{GroupedLinear, grouped_linear};
pub use output::expert_output;
pub use slots::{Routing, route};

use super::activation::Activation;
use crate::error::Result;
use crate::graph::{Graph, Tensor};

/// The weights of gated experts, stacked: `gate` and `up` (E, F, C), `down` (E, C, F).
#[derive(Clone, Copy, Debug)]
pub struct ExpertWeights {
    /// From x to what goes into the activation.
    pub gate: Tensor,
    /// From x to what the activation is multiplied by.
    pub up: Tensor,
    /// From there back to the width of x.
    pub down: Tensor,
}

/// `y[t] = Σ_k weights[t, k] · E_e(x[t])`, e the expert of slot (t, k), `E_e(x) = (f(x Wgᵀ) ⊙ (x Wuᵀ)) Wdᵀ`.
///
/// x (T, C), weights (T, K), y (T, C). What is kept for the backward pass are x and what goes into the activations, two tensors
/// (T K, F).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) that names the operand that does not fit.
pub fn expert_feed_forward(
    g: &mut Graph,
    x: Tensor,
    experts: ExpertWeights,
    weights: Tensor,
    routing: &Routing,
    activation: Activation,
) -> Result<Tensor> {
    let gate = grouped_linear(g, x, experts.gate, routing)?;
    let up = grouped_linear(g, x, experts.up, routing)?;
    expert_output(g, [gate, up], experts.down, weights, routing, activation)
}
