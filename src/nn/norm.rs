//! Normalisation layers as data.

use crate::error::Result;
use crate::graph::{Graph, Initial, Tensor};
use crate::ops;

/// The kind of a norm, and its epsilon.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum NormKind {
    /// Layer norm with `weight` and `bias`: [`ops::layer_norm`].
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// Layer norm with `weight` alone.
    LayerGain {
        /// Added to the variance.
        eps: f32,
    },
    /// RMS norm with `weight`: [`ops::rms_norm`].
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
    /// RMS norm with the gain `1 + weight`: [`ops::rms_norm_plus_one`].
    RmsPlusOne {
        /// Added to the mean square.
        eps: f32,
    },
}

impl NormKind {
    /// The norm of `x (…, C)` with `PREFIX.weight (C)` and, if it has one, `PREFIX.bias (C)`, all f32.
    ///
    /// # Errors
    /// Those of [`ops::layer_norm`], [`ops::rms_norm`] and [`ops::rms_norm_plus_one`].
    pub fn apply(self, g: &mut Graph, prefix: &str, x: Tensor) -> Result<Tensor> {
        let d_model = g.shape(x).last();
        let fresh = if let Self::RmsPlusOne { .. } = self { Initial::Zeros } else { Initial::Ones };
        let gain = g.full_precision(&format!("{prefix}.weight"), [d_model], fresh)?;
        match self {
            Self::Layer { eps } => {
                let bias = g.full_precision(&format!("{prefix}.bias"), [d_model], Initial::Zeros)?;
                ops::layer_norm(g, x, gain, Some(bias), eps)
            }
            Self::LayerGain { eps } => ops::layer_norm(g, x, gain, None, eps),
            Self::Rms { eps } => ops::rms_norm(g, x, gain, eps),
            Self::RmsPlusOne { eps } => ops::rms_norm_plus_one(g, x, gain, eps),
        }
    }
}

/// The order of norms and residual sums in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormOrder {
    /// `x + f(norm(x))`, in front of each part of a block: GPT-2, Llama.
    Pre,
    /// `norm(x + f(x))`, behind each sum: the original transformer, BERT, BART.
    Post,
    /// `x + norm′(f(norm(x)))`: Gemma 2.
    Both,
}
