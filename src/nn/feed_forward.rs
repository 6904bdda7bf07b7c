//! The position-wise feed-forward network, plain or gated.

use super::dense::{Style, activated_linear, linear};
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Activation};

/// `act(x · W₁ + b₁) · W₂ + b₂` with the linear layers `names`.
///
/// # Errors
/// Those of the ops.
pub fn feed_forward(
    g: &mut Graph,
    names: [&str; 2],
    x: Tensor,
    inner: usize,
    act: Activation,
    style: Style,
) -> Result<Tensor> {
    let width = g.shape(x).last();
    let up = activated_linear(g, names[0], x, inner, Some(act), style)?;
    linear(g, names[1], up, width, style)
}

/// `(act(x · Wg) ⊙ (x · Wu)) · Wd` with the linear layers `gate_proj`, `up_proj` and `down_proj` under `prefix`.
/// Shazeer, "GLU variants improve transformer", 2020.
///
/// # Errors
/// Those of the ops.
pub fn gated_feed_forward(
    g: &mut Graph,
    prefix: &str,
    x: Tensor,
    inner: usize,
    act: Activation,
    style: Style,
) -> Result<Tensor> {
    let width = g.shape(x).last();
    let gate = linear(g, &format!("{prefix}.gate_proj"), x, inner, style)?;
    let up = linear(g, &format!("{prefix}.up_proj"), x, inner, style)?;
    let hidden = ops::gated(g, gate, up, act)?;
    linear(g, &format!("{prefix}.down_proj"), hidden, width, style)
}
