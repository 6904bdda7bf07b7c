//! The entropy of routers.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::TensorType;

static ROW_ENTROPY: Kernel = kernel!("recursion/row_entropy");

/// The entropy of each row of `scores` (N, R) f32, normalised to sum 1, in nats: (N) f32; ln R for a uniform row, 0 for a one-hot row. For
/// reports; no gradient.
///
/// With `lengths` (B) u32, where B divides N, only the first `lengths[b]` rows of each N / B count; the others give 0.
///
/// # Errors
/// [`Error::Shape`] if the scores are no f32 matrix or the lengths do not fit them.
pub fn row_entropy(g: &mut Graph, scores: Tensor, lengths: Option<Tensor>) -> Result<Tensor> {
    entropy(g, scores, lengths, false)
}

/// The entropy of a Bernoulli variable with probability σ(l), for each of `logits` (N, 1) f32, in nats: (N) f32. Otherwise as
/// [`row_entropy`].
///
/// # Errors
/// As [`row_entropy`].
pub fn binary_entropy(g: &mut Graph, logits: Tensor, lengths: Option<Tensor>) -> Result<Tensor> {
    entropy(g, logits, lengths, true)
}

fn entropy(g: &mut Graph, x: Tensor, lengths: Option<Tensor>, binary: bool) -> Result<Tensor> {
    let inputs: Vec<Tensor> = [Some(x), lengths].into_iter().flatten().collect();
    g.put1(RowEntropy { binary }, &inputs)
}

/// The rows of each sequence: N / B with lengths (B), else N.
pub(in crate::ops) fn time_of(op: &str, rows: usize, lengths: Option<&TensorType>) -> Result<usize> {
    let Some(lengths) = lengths else { return Ok(rows) };
    let batch = lengths.shape.numel();
    if lengths.dtype != DType::U32 || lengths.shape.rank() != 1 || batch == 0 || !rows.is_multiple_of(batch) {
        let what = format!("lengths is {lengths}, expected u32[B], B dividing the {rows} tokens");
        return Err(Error::shape(op, what));
    }
    Ok(rows / batch)
}

/// See [`row_entropy`] and [`binary_entropy`]. Inputs: x (N, R), and optionally lengths (B). No gradient.
#[derive(Debug)]
struct RowEntropy {
    binary: bool,
}

impl RowEntropy {
    fn of_row(&self, row: &[f64]) -> f64 {
        if self.binary {
            let size = row[0].abs();
            let odds = (-size).exp();
            return odds.ln_1p() + size * odds / (1.0 + odds);
        }
        let sum: f64 = row.iter().map(|x| x.max(0.0)).sum();
        let share = |x: &f64| x.max(0.0) / sum;
        row.iter().map(share).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum()
    }
}

impl Op for RowEntropy {
    fn name(&self) -> &'static str {
        if self.binary { "binary_entropy" } else { "row_entropy" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let x = &inputs[0];
        match x.shape.dims() {
            &[rows, columns] if x.dtype == DType::F32 && rows * columns > 0 && (columns == 1 || !self.binary) => {
                time_of(self.name(), rows, inputs.get(1))?;
                Ok(vec![TensorType::f32([rows])])
            }
            _ => {
                let wanted = if self.binary { "a column of logits" } else { "a matrix of scores" };
                Err(Error::shape(self.name(), format!("expected {wanted}, got {x}")))
            }
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let rows = inputs[0].shape.rows();
        let time = inputs.get(1).map_or(rows, |lengths| rows / lengths.data.len());
        let there = |row: usize| inputs.get(1).is_none_or(|l| ((row % time) as f64) < l.data[row / time]);
        Ok(vec![Array::from_fn([rows], |row| if there(row) { self.of_row(inputs[0].row(row)) } else { 0.0 })])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let x = cx.input(0);
        let (rows, columns) = (x.shape.rows(), x.shape.last());
        let lengths = (cx.input_count() == 2).then(|| cx.input(1));
        let batch = lengths.as_ref().map_or(1, View::numel);
        let dispatch = Dispatch::new(&ROW_ENTROPY).constant("BINARY", self.binary).read(x.clone());
        // An absent input is not read, but its binding needs a buffer.
        let dispatch = dispatch.read(lengths.unwrap_or(x)).write(cx.output(0));
        let dispatch = dispatch.param(rows).param(columns).param(rows / batch).param(cx.input_count() - 1);
        cx.dispatch(dispatch.groups_for(rows, 64).flops(4 * (rows * columns) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused() -> Result<()> {
        let mut g = Graph::new();
        let scores = g.input("scores", [6, 4], DType::F32)?;
        let lengths = g.input("lengths", [4], DType::U32)?;
        let refused = |result: Result<Tensor>| result.map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        let message = refused(binary_entropy(&mut g, scores, None));
        assert_eq!(message, "binary_entropy: expected a column of logits, got f32[6, 4]");
        let message = refused(row_entropy(&mut g, lengths, None));
        assert_eq!(message, "row_entropy: expected a matrix of scores, got u32[4]");
        let message = refused(row_entropy(&mut g, scores, Some(lengths)));
        assert_eq!(message, "row_entropy: lengths is u32[4], expected u32[B], B dividing the 6 tokens");
        Ok(())
    }

    #[test]
    fn even_scores_have_the_entropy_of_their_count() {
        let entropy = RowEntropy { binary: false };
        approx::assert_relative_eq!(entropy.of_row(&[0.3; 5]), 5.0_f64.ln(), epsilon = 1e-12);
        assert!(entropy.of_row(&[0.0, 2.0, 0.0]).abs() < 1e-12 && entropy.of_row(&[0.0; 3]).abs() < 1e-12);
        let binary = RowEntropy { binary: true };
        let p: f64 = 1.0 / (1.0 + (-1.5_f64).exp());
        let expected = -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        for logit in [1.5, -1.5] {
            approx::assert_relative_eq!(binary.of_row(&[logit]), expected, epsilon = 1e-12);
        }
    }
}
