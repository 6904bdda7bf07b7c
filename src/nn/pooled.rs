//! A state for each row.

use super::attention::KvSource;
use super::inputs::TokenInputs;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Array, Graph, Tensor};
use crate::ops;

/// The state of the first token of each row: `(B, C)` of `(B, T, C)`.
///
/// # Errors
/// Those of the ops.
pub(crate) fn first_states(g: &mut Graph, states: Tensor) -> Result<Tensor> {
    let [batch, _, d_model] = g.shape(states).expect("states")?;
    let first = ops::slice(g, states, 1, 0, 1)?;
    ops::reshape(g, first, [batch, d_model])
}

/// The mean of the states `(B, T, C)` of real tokens, `(B, C)`.
///
/// # Errors
/// Those of the ops.
pub(crate) fn mean_states(g: &mut Graph, states: Tensor, inputs: &TokenInputs) -> Result<Tensor> {
    let [batch, time, width] = g.shape(states).expect("states")?;
    let ones = |g: &mut Graph| g.constant("ones", Array::from_fn([batch, time], |_| 1.0), DType::U32);
    let mask = match inputs.kv {
        KvSource::Uncached { key_mask: Some(mask) } => mask,
        KvSource::Packed { lengths: Some(lengths) } => {
            let ones = ones(g);
            ops::fill_rows(g, ones, lengths, 0)?
        }
        _ => ones(g),
    };
    // A softmax of scores that are all 0, or far below, gives each real token the same share.
    let scores = g.constant("scores", Array::new([2, 1], vec![-1e9, 0.0])?, DType::F32);
    let scores = ops::embedding(g, scores, mask)?;
    let scores = ops::reshape(g, scores, [batch, time])?;
    let shares = ops::softmax(g, scores)?;
    let shares = ops::reshape(g, shares, [batch, 1, time])?;
    let mean = ops::matmul(g, shares, states)?;
    ops::reshape(g, mean, [batch, width])
}
