//! Gradients in one flat range, their norm, clipping, AdamW, loss scaling and casts of weights.
//!
//! All ops here work on *flat ranges*: one-dimensional f32 tensors of a multiple of [`BLOCK`] elements with the tensors of a model, each at
//! a multiple of [`BLOCK`], and zeros in between. A training step is
//!
//! ```text
//! gradients ──pack──► flat ──global_norm──► norm ──optimizer_control──► control ──adamw──► parameters, moments
//! ```
//!
//! without a wait for the CPU: clipping, bias correction, loss scaling and the decision to skip a step whose gradients are not finite are
//! all made on the GPU.

mod adamw;
mod cast;
mod control;
mod norm;
mod pack;

pub use adamw::{AdamW, adamw};
#[cfg(feature = "files")]
pub(crate) use cast::CastHalf;
pub(crate) use cast::cast_half;
pub use control::OptimizerScalars;
pub use control::StepReport;
pub use control::optimizer_control;
pub(crate) use control::{OptimizerControl, loss_seed};
pub use norm::global_norm;
pub use pack::pack;

use crate::case::Case;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::shape::TensorType;

/// The conformance cases of the ops.
pub(super) fn cases() -> Vec<Case> {
    [adamw::cases(), cast::cases(), control::cases(), norm::cases(), pack::cases()].into_iter().flatten().collect()
}

/// The alignment of tensors in a flat range, in elements: the largest binding alignment of WebGPU, in f32.
pub(crate) const BLOCK: usize = 64;

/// Checks that `ty` is a flat range of f32.
fn expect_flat(op: &str, what: &str, ty: &TensorType) -> Result<usize> {
    let count = ty.shape.numel();
    if ty.shape.rank() == 1 && ty.dtype == DType::F32 && count > 0 && count.is_multiple_of(BLOCK) {
        return Ok(count);
    }
    Err(Error::shape(op, format!("{what} is {ty}, expected a flat range: f32[n], n a multiple of {BLOCK}")))
}

/// Checks that `ty` is `count` elements of f32.
fn expect_vector(op: &str, what: &str, ty: &TensorType, count: usize) -> Result<()> {
    if ty.dtype == DType::F32 && ty.shape.numel() == count {
        return Ok(());
    }
    Err(Error::shape(op, format!("{what} is {ty}, expected f32[{count}]")))
}

/// Checks the number of operands.
fn expect_count(op: &str, inputs: &[TensorType], count: usize) -> Result<()> {
    if inputs.len() == count {
        return Ok(());
    }
    Err(Error::shape(op, format!("expected {count} tensors, got {}", inputs.len())))
}

/// For cases: the flat range `name` holding `x`, since an input can't be updated in place.
fn as_state(g: &mut Graph, name: &str, x: Tensor) -> Result<Tensor> {
    let state = g.state(name, g.shape(x).clone(), DType::F32)?;
    pack(g, state, &[(x, 0)], None)
}
