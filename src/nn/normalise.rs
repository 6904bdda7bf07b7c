//! Normalisation layers, alone or fused with the residual sum in front of them.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops;

fn vector(g: &mut Graph, prefix: &str, name: &str, x: Tensor) -> Result<Tensor> {
    let width = g.shape(x).last();
    g.parameter(&format!("{prefix}.{name}"), [width], DType::F32)
}

/// Layer norm with `PREFIX.weight` and `PREFIX.bias`.
///
/// # Errors
/// Those of [`ops::layer_norm`].
pub fn layer_norm(g: &mut Graph, prefix: &str, x: Tensor, eps: f32) -> Result<Tensor> {
    let gain = vector(g, prefix, "weight", x)?;
    let bias = vector(g, prefix, "bias", x)?;
    ops::layer_norm(g, x, gain, Some(bias), eps)
}

/// `sum = x + residual` and the layer norm of the sum.
///
/// # Errors
/// Those of [`ops::add_layer_norm`].
pub fn add_layer_norm(g: &mut Graph, prefix: &str, x: Tensor, residual: Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let gain = vector(g, prefix, "weight", x)?;
    let bias = vector(g, prefix, "bias", x)?;
    ops::add_layer_norm(g, x, residual, gain, Some(bias), eps)
}

/// RMS norm with `PREFIX.weight`.
///
/// # Errors
/// Those of [`ops::rms_norm`].
pub fn rms_norm(g: &mut Graph, prefix: &str, x: Tensor, eps: f32) -> Result<Tensor> {
    let gain = vector(g, prefix, "weight", x)?;
    ops::rms_norm(g, x, gain, eps)
}

/// `sum = x + residual` and the RMS norm of the sum.
///
/// # Errors
/// Those of [`ops::add_rms_norm`].
pub fn add_rms_norm(g: &mut Graph, prefix: &str, x: Tensor, residual: Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let gain = vector(g, prefix, "weight", x)?;
    ops::add_rms_norm(g, x, residual, gain, eps)
}
