//! The position-wise feed-forward network: plain, gated, or of experts.

use super::dense::{LinearConfig, LinearUse, dropout, linear_with};
use super::experts::{ExpertMode, Experts, GateOutput, expert_choice_feed_forward, expert_feed_forward};
use super::switch::SwitchExperts;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Activation};

/// The usual names of the gate, up and down projections of a gated network.
pub(crate) const GATED: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// The feed-forward part of a block. Names stand behind the block's prefix.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FeedForward {
    /// `act(x · W₁ + b₁) · W₂ + b₂`.
    Plain {
        /// The two linear layers.
        names: [&'static str; 2],
        /// Features between them.
        d_ff: usize,
        /// The activation.
        activation: Activation,
        /// The configuration of the first.
        linear: LinearConfig,
        /// The configuration of the second.
        output_linear: LinearConfig,
    },
    /// `(act(x · Wg) ⊙ (x · Wu)) · Wd`. Shazeer, "GLU variants improve transformer", 2020 (arXiv 2002.05202).
    Gated {
        /// The module.
        module: &'static str,
        /// The gate, up and down projections in it. Gate and up of one name are one layer, the gate's outputs in front.
        names: [&'static str; 3],
        /// Features inside.
        d_ff: usize,
        /// The activation of the gate.
        activation: Activation,
        /// The configuration of the gate and up projections.
        linear: LinearConfig,
        /// The configuration of the down projection.
        output_linear: LinearConfig,
    },
    /// Some of several gated networks for each token.
    Experts {
        /// The experts.
        experts: Experts,
        /// The activation of their gates.
        activation: Activation,
        /// Experts choose their tokens, so many for each on average: [`expert_choice_feed_forward`], for encoders. None: tokens choose.
        choice: Option<f32>,
        /// The standard deviation of fresh weights: of all but the down projections, and of these.
        std: [f64; 2],
    },
    /// The best of several plain networks for each token, as in Switch Transformers.
    Switch(SwitchExperts),
}

/// The inputs of a feed-forward network besides the states.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedForwardUse {
    /// Whether this is a step of training: experts have a capacity.
    pub training: bool,
    /// The seed of noise, `(2)` u32.
    pub seed: Option<Tensor>,
    /// The number of tokens of each row of `x (B, T, C)`, `(B)` u32. None: all.
    pub lengths: Option<Tensor>,
    /// The mask of experts if there are no lengths, `(B, T)` u32, 0 on padding. None: all tokens.
    pub mask: Option<Tensor>,
    /// The rate of dropout in front of the last layer, not within experts.
    pub dropout: f32,
    /// The salt of that dropout.
    pub dropout_salt: u32,
}

impl FeedForward {
    /// The network of `x (…, C)` under `prefix`, and what the gate of its experts did, if it has some.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn run(
        &self,
        g: &mut Graph,
        prefix: &str,
        x: Tensor,
        with: FeedForwardUse,
    ) -> Result<(Tensor, Option<GateOutput>)> {
        let FeedForwardUse { training, seed, lengths, .. } = with;
        match self {
            Self::Plain { names, d_ff, activation, linear, output_linear } => {
                let [up, down] = names.map(|name| format!("{prefix}.{name}"));
                let y = linear_with(g, &up, x, *d_ff, *linear, LinearUse { activation: Some(*activation), lengths })?;
                let y = dropout(g, y, with.dropout, seed, with.dropout_salt)?;
                let d_model = g.shape(x).last();
                Ok((linear_with(g, &down, y, d_model, *output_linear, LinearUse { activation: None, lengths })?, None))
            }
            Self::Gated { module, names, d_ff, activation, linear, output_linear } => {
                let [gate, up, down] = names.map(|name| format!("{prefix}.{module}.{name}"));
                let plain = LinearUse { activation: None, lengths };
                let [gate, up] = match gate == up {
                    true => {
                        let both = linear_with(g, &gate, x, d_ff.saturating_mul(2), *linear, plain)?;
                        let parts = ops::split(g, both, g.shape(both).rank() - 1, &[*d_ff; 2])?;
                        [parts[0], parts[1]]
                    }
                    false => [
                        linear_with(g, &gate, x, *d_ff, *linear, plain)?,
                        linear_with(g, &up, x, *d_ff, *linear, plain)?,
                    ],
                };
                let y = ops::gated(g, gate, up, *activation)?;
                let y = dropout(g, y, with.dropout, seed, with.dropout_salt)?;
                Ok((linear_with(g, &down, y, g.shape(x).last(), *output_linear, plain)?, None))
            }
            Self::Experts { experts, activation, choice, std } => {
                let mode =
                    ExpertMode { activation: *activation, training, seed, lengths: lengths.or(with.mask), std: *std };
                if let Some(factor) = choice {
                    return Ok((expert_choice_feed_forward(g, prefix, x, experts, *factor, mode)?.0, None));
                }
                let (y, gate) = expert_feed_forward(g, prefix, x, experts, mode)?;
                Ok((y, Some(gate)))
            }
            Self::Switch(experts) => {
                let (y, gate) = experts.run(g, prefix, x, with)?;
                Ok((y, Some(gate)))
            }
        }
    }

    /// The elements of the matrices that a token is multiplied by.
    #[must_use]
    pub fn active_parameters(&self, d_model: usize) -> usize {
        match self {
            Self::Plain { d_ff, .. } | Self::Switch(SwitchExperts { d_ff, .. }) => 2 * d_model * d_ff,
            Self::Gated { d_ff, .. } => 3 * d_model * d_ff,
            Self::Experts { experts, .. } => {
                let d_ff = experts.gate.k * experts.d_ff + experts.shared.map_or(0, |shared| shared.d_ff);
                3 * d_model * d_ff
            }
        }
    }
}

/// `(act(x · Wg) ⊙ (x · Wu)) · Wd` with the linear layers `names` (gate, up, down), the first two made as `configs[0]` and the last as
/// `configs[1]`, of the rows that `lengths` counts.
///
/// # Errors
/// Those of the ops.
pub(crate) fn gated_feed_forward(
    g: &mut Graph,
    names: [&str; 3],
    x: Tensor,
    d_ff: usize,
    activation: Activation,
    configs: [LinearConfig; 2],
    lengths: Option<Tensor>,
) -> Result<Tensor> {
    let d_model = g.shape(x).last();
    let with = LinearUse { activation: None, lengths };
    let gate = linear_with(g, names[0], x, d_ff, configs[0], with)?;
    let up = linear_with(g, names[1], x, d_ff, configs[0], with)?;
    let hidden = ops::gated(g, gate, up, activation)?;
    linear_with(g, names[2], hidden, d_model, configs[1], with)
}
