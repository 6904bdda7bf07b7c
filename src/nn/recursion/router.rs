//! Routers of recursions.

use super::super::dense::{LinearConfig, LinearUse, linear, linear_with};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Activation, RouterLoss};

/// The function from a router's logit to a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterFunction {
    /// `σ(l)`.
    Sigmoid,
    /// `tanh l`.
    Tanh,
    /// `l` itself.
    Identity,
    /// `softmax(l)` over the choices, where a router chooses one of several.
    Softmax,
}

/// The network from hidden states to logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouterKind {
    /// One product.
    Linear,
    /// Two, `2 d_model` features between them, with a GELU.
    Mlp,
}

/// A router without biases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Router {
    /// The network from hidden states to logits.
    pub kind: RouterKind,
    /// The function from a logit to a gate.
    pub function: RouterFunction,
    /// The factor of gates.
    pub alpha: f32,
    /// The coefficients of its losses.
    pub loss: RouterLoss,
}

impl Router {
    /// The logits `(…, outputs)` of states `(…, C)`: `PREFIX.weight`, or `PREFIX.up_proj.weight` and
    /// `PREFIX.down_proj.weight`, f32 in any model; `std` is the standard deviation of fresh ones.
    pub(super) fn logits(&self, g: &mut Graph, prefix: &str, x: Tensor, outputs: usize, std: f64) -> Result<Tensor> {
        let config = LinearConfig::router().with_std(std);
        match self.kind {
            RouterKind::Linear => linear(g, prefix, x, outputs, config),
            RouterKind::Mlp => {
                let (d_model, act) = (g.shape(x).last(), Activation::GeluErf);
                let with = LinearUse { activation: Some(act), lengths: None };
                let up = linear_with(g, &format!("{prefix}.up_proj"), x, 2 * d_model, config, with)?;
                linear(g, &format!("{prefix}.down_proj"), up, outputs, config)
            }
        }
    }

    /// `alpha · f(logits)`.
    pub(super) fn gates(&self, g: &mut Graph, logits: Tensor) -> Result<Tensor> {
        let gates = match self.function {
            RouterFunction::Sigmoid => ops::activation(g, logits, Activation::Sigmoid)?,
            RouterFunction::Tanh => ops::activation(g, logits, Activation::Tanh)?,
            RouterFunction::Identity => logits,
            RouterFunction::Softmax => ops::softmax(g, logits)?,
        };
        if self.alpha == 1.0 { Ok(gates) } else { ops::scale(g, gates, self.alpha) }
    }
}
