//! Linear layers, embedding tables and dropout.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Activation, LinearOptions, WeightLayout};

/// How a model's linear layers are made.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Which axis of a weight is the input's.
    pub layout: WeightLayout,
    /// How matrices lie in GPU memory. Biases and gains are f32 always.
    pub storage: DType,
    /// Whether there is a bias.
    pub bias: bool,
    /// How many rows of `x (B, T, …)` are there, `(B)` u32; the others count as zero, and cost nothing. None: all.
    pub lengths: Option<Tensor>,
}

/// `x · W + b` for `x (…, in)`: `PREFIX.weight` is `(in, out)` or `(out, in)` by the layout, `PREFIX.bias` is `(out)`.
///
/// # Errors
/// Those of [`ops::linear`].
pub fn linear(g: &mut Graph, prefix: &str, x: Tensor, out: usize, style: Style) -> Result<Tensor> {
    activated_linear(g, prefix, x, out, None, style)
}

/// [`linear`] with an activation of the result, in one kernel.
///
/// # Errors
/// Those of [`ops::linear_fused`].
pub fn activated_linear(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    out: usize,
    activation: Option<Activation>,
    style: Style,
) -> Result<Tensor> {
    let width = g.shape(x).last();
    let shape = match style.layout {
        WeightLayout::InOut => [width, out],
        WeightLayout::OutIn => [out, width],
    };
    let weight = g.parameter(&format!("{prefix}.weight"), shape, style.storage)?;
    let bias = match style.bias {
        true => Some(g.parameter(&format!("{prefix}.bias"), [out], DType::F32)?),
        false => None,
    };
    ops::linear_fused(
        g,
        x,
        weight,
        LinearOptions { bias, layout: style.layout, activation, residual: None, lengths: style.lengths },
    )
}

/// The rows of `PREFIX.weight (rows, width)` that `ids (…)` name.
///
/// # Errors
/// Those of [`ops::embedding`].
pub fn embedding(g: &mut Graph, prefix: &str, ids: Tensor, table: [usize; 2], storage: DType) -> Result<Tensor> {
    let table = g.parameter(&format!("{prefix}.weight"), table, storage)?;
    ops::embedding(g, table, ids)
}

/// Dropout at `rate` when there is a `seed` (training) and something to drop; `salt` tells the places of a model apart.
///
/// # Errors
/// Those of [`ops::dropout`].
pub fn dropout(g: &mut Graph, x: Tensor, rate: f32, seed: Option<Tensor>, salt: u32) -> Result<Tensor> {
    match seed {
        Some(seed) if rate > 0.0 => ops::dropout(g, x, rate, seed, salt),
        _ => Ok(x),
    }
}
