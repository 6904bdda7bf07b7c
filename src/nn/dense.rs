//! Linear layers, embedding tables and dropout.

use crate::error::Result;
use crate::graph::{Graph, Initial, LOW_RANK, LowRank, Tensor};
use crate::ops::{self, Activation, LinearOptions, WeightLayout};

/// The input with the seed of dropout, `(2)` u32, of graphs that train.
pub const DROPOUT_SEED: &str = "dropout_seed";

/// The standard deviation of fresh weights where nothing else is said.
const STD: f64 = 0.02;

/// The configuration of a linear layer. Its bias is always f32, and zero at first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearConfig {
    /// The order of the axes of the weight.
    pub layout: WeightLayout,
    /// Whether there is a bias.
    pub bias: bool,
    /// The weight is f32 whatever the graph's other matrices are stored in: routers decide by small differences.
    pub full_precision: bool,
    /// The standard deviation of fresh weights, 0.02 unless [`LinearConfig::with_std`] says otherwise.
    pub std: f64,
}

impl LinearConfig {
    /// Weights `(out, in)`, as `torch.nn.Linear` has them.
    #[must_use]
    pub fn out_in(bias: bool) -> Self {
        Self { layout: WeightLayout::OutIn, bias, full_precision: false, std: STD }
    }

    /// Weights `(in, out)`, as GPT-2 has them.
    #[must_use]
    pub fn in_out(bias: bool) -> Self {
        Self { layout: WeightLayout::InOut, bias, full_precision: false, std: STD }
    }

    /// Without a bias, in full precision.
    #[must_use]
    pub fn router() -> Self {
        Self { full_precision: true, ..Self::out_in(false) }
    }

    /// The same with another standard deviation of fresh weights.
    #[must_use]
    pub fn with_std(self, std: f64) -> Self {
        Self { std, ..self }
    }
}

/// Additions to the product of a linear layer, in the same kernel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LinearUse {
    /// The activation of the result.
    pub activation: Option<Activation>,
    /// The number of rows of `x (B, T, …)`, `(B)`; the others count as zero, and cost nothing. None: all.
    pub lengths: Option<Tensor>,
}

/// `x · W + b` for `x (…, in)`: `PREFIX.weight` is `(in, out)` or `(out, in)` by the layout, `PREFIX.bias` is `(out)`.
///
/// # Errors
/// Those of [`ops::linear`].
pub fn linear(g: &mut Graph, prefix: &str, x: Tensor, out: usize, config: LinearConfig) -> Result<Tensor> {
    linear_with(g, prefix, x, out, config, LinearUse::default())
}

/// [`linear`] with what `with` says.
///
/// # Errors
/// Those of [`ops::linear_fused`].
pub(crate) fn linear_with(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    out: usize,
    config: LinearConfig,
    with: LinearUse,
) -> Result<Tensor> {
    let features = g.shape(x).last();
    let shape = match config.layout {
        WeightLayout::InOut => [features, out],
        WeightLayout::OutIn => [out, features],
    };
    let weight = match config.full_precision {
        true => g.full_precision(&format!("{prefix}.weight"), shape, Initial::Normal(config.std))?,
        false => g.matrix(&format!("{prefix}.weight"), shape, Initial::Normal(config.std))?,
    };
    let bias = match config.bias {
        true => Some(g.full_precision(&format!("{prefix}.bias"), [out], Initial::Zeros)?),
        false => None,
    };
    let LinearUse { activation, lengths } = with;
    let options = LinearOptions { bias, layout: config.layout, activation, residual: None, lengths };
    let Some(adapter) = g.storage().low_rank(prefix) else { return ops::linear_fused(g, x, weight, options) };
    let y = ops::linear_fused(g, x, weight, LinearOptions { activation: None, ..options })?;
    let y = adapted(g, prefix, x, y, adapter, lengths)?;
    activation.map_or(Ok(y), |activation| ops::activation(g, y, activation))
}

/// `y + scale B (A x)`: see [`LowRank`]. A fresh A has the variance of Kaiming's uniform numbers, as PEFT has it, a fresh B is zero.
fn adapted(
    g: &mut Graph,
    layer: &str,
    x: Tensor,
    y: Tensor,
    adapter: LowRank,
    lengths: Option<Tensor>,
) -> Result<Tensor> {
    let (features, out) = (g.shape(x).last(), g.shape(y).last());
    let [name_a, name_b] = LOW_RANK.map(|end| format!("{layer}{end}"));
    let std = 1.0 / (3.0 * features as f64).sqrt();
    let a = g.full_precision(&name_a, [adapter.rank, features], Initial::Normal(std))?;
    let b = g.full_precision(&name_b, [out, adapter.rank], Initial::Zeros)?;
    let options = LinearOptions { layout: WeightLayout::OutIn, lengths, ..LinearOptions::default() };
    // Only graphs that train have the seed.
    let seed = g.find(DROPOUT_SEED);
    let salt = layer.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let seen = dropout(g, x, adapter.dropout, seed, salt)?;
    let low = ops::linear_fused(g, seen, a, options)?;
    let low = scaled(g, low, adapter.scale)?;
    ops::linear_fused(g, low, b, LinearOptions { residual: Some(y), ..options })
}

/// The rows of `PREFIX.weight (rows, C)` that `ids (…)` name; fresh ones have a standard deviation of `std`.
///
/// # Errors
/// Those of [`ops::embedding`].
pub fn embedding(g: &mut Graph, prefix: &str, ids: Tensor, table: [usize; 2], std: f64) -> Result<Tensor> {
    let table = g.matrix(&format!("{prefix}.weight"), table, Initial::Normal(std))?;
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

/// `x · factor`, or x itself if the factor is 1.
///
/// # Errors
/// Those of [`ops::scale`].
pub fn scaled(g: &mut Graph, x: Tensor, factor: f32) -> Result<Tensor> {
    if (factor - 1.0).abs() > 0.0 { ops::scale(g, x, factor) } else { Ok(x) }
}
