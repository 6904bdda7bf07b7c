//! The common parts of the losses of routers.

use crate::case::Feed;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Array;
use crate::shape::TensorType;

/// The weights of the parts of a router's loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterLoss {
    /// The auxiliary loss: of the selection, or of the balance.
    pub aux: f32,
    /// The z-loss: the mean of squared log-sum-exps; for a single logit its square.
    pub z: f32,
}

/// Checks that an operand is an f32 matrix.
pub(super) fn matrix(op: &str, what: &str, ty: &TensorType) -> Result<[usize; 2]> {
    match ty.shape.dims() {
        &[rows, columns] if ty.dtype == DType::F32 && rows * columns > 0 => Ok([rows, columns]),
        _ => Err(Error::shape(op, format!("expected {what} to be an f32 matrix, got {ty}"))),
    }
}

/// Checks the type of an operand.
pub(super) fn expect(op: &str, what: &str, ty: &TensorType, expected: &TensorType) -> Result<()> {
    if ty == expected { Ok(()) } else { Err(Error::shape(op, format!("{what} is {ty}, expected {expected}"))) }
}

/// The number of candidates that count, and whether candidate `i` counts.
pub(super) fn counted(batch: usize, time: usize, lengths: Option<&Array>) -> (f64, impl Fn(usize) -> bool) {
    let length = move |b: usize| lengths.map_or(time, |l| (l.data[b] as usize).min(time));
    let all = (0..batch).map(length).sum::<usize>().max(1) as f64;
    (all, move |i: usize| i % time < length(i / time))
}

/// Lengths of a case: whole rows, shorter ones, and one that no row has.
pub(super) fn lengths(batch: usize, time: usize) -> Feed {
    Feed::given(
        "lengths",
        [batch],
        DType::U32,
        (0..batch).map(|b| if b == 2 { f64::from(u32::MAX) } else { (time - b * 5 % time) as f64 }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Tensor};
    use crate::ops::{argmax_rows, balance_loss, pick, selection_loss};

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let logits = g.input("logits", [2, 5], DType::F32)?;
        let choice = g.input("choice", [5], DType::U32)?;
        let loss = RouterLoss { aux: 1.0, z: 0.0 };
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(selection_loss(&mut g, logits, choice, None, loss));
        assert_eq!(message, "selection_loss: inverse is u32[5], expected u32[10]");
        let message = refused(balance_loss(&mut g, logits, logits, choice, None, loss));
        assert_eq!(message, "balance_loss: the choice is u32[5], expected u32[2]");
        let message = refused(pick(&mut g, logits, choice));
        assert_eq!(message, "pick: the index is u32[5], expected u32[2]");
        let message = refused(argmax_rows(&mut g, logits, Some(logits)));
        assert_eq!(message, "argmax_rows: the bias is f32[2, 5], expected f32[5]");
        Ok(())
    }
}
