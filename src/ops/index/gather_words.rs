//! Gathers rows of integers by index, such as the data of selected tokens.

use super::gather::{gathered, indices, launch_gather};
use crate::case::{Case, Feed, mixed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::Launch;
use crate::shape::TensorType;

/// `out[m, c] = x[index[m], c]`, zero where `index[m] ≥ N`: `x` (N, C) u32, `index` (M) u32, out (M, C). No gradient.
///
/// With the rows of a tree mask it gives those of selected tokens: see [`AttentionOptions`](crate::ops::AttentionOptions).
///
/// # Errors
/// [`Error::Shape`] if `x` is no u32 matrix or `index` no u32 vector.
pub fn gather_words(g: &mut Graph, x: Tensor, index: Tensor) -> Result<Tensor> {
    g.put1(GatherWords, &[x, index])
}

/// See [`gather_words`].
#[derive(Debug)]
struct GatherWords;

impl Op for GatherWords {
    fn name(&self) -> &'static str {
        "gather_words"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let words = inputs.iter().take(2).all(|ty| ty.dtype == DType::U32 && ty.shape.numel() > 0);
        match (inputs[0].shape.dims(), inputs[1].shape.dims()) {
            (&[_, columns], &[count]) if words => Ok(vec![TensorType::new([count, columns], DType::U32)]),
            _ => {
                let what = format!("expected a u32 matrix and a u32 vector, got {} and {}", inputs[0], inputs[1]);
                Err(Error::shape(self.name(), what))
            }
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        Ok(vec![gathered(inputs[0], inputs[1])])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        launch_gather(cx)
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, columns, count) in [(1, 3, 1), (31, 3, 33), (97, 4, 257)] {
        let words = Feed::given("x", [rows, columns], DType::U32, mixed(rows * columns, 997));
        let mut values = mixed(count, rows);
        values[count / 2] = 4_000_000_000.0;
        let name = format!("gather_words {count} of [{rows}, {columns}]");
        cases.push(Case::new(name, vec![words, indices(values)], |g, x| Ok(vec![gather_words(g, x[0], x[1])?])));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4, 3], DType::U32)?;
        let float = g.input("float", [4, 3], DType::F32)?;
        let index = g.input("index", [5], DType::U32)?;
        let error = gather_words(&mut g, float, index).unwrap_err().to_string();
        assert!(
            error.contains("gather_words: expected a u32 matrix and a u32 vector, got f32[4, 3] and u32[5]"),
            "{error}"
        );
        assert!(gather_words(&mut g, x, x).is_err() && gather_words(&mut g, index, index).is_err());
        let out = gather_words(&mut g, x, index)?;
        assert_eq!((g.shape(out).dims(), g.dtype(out)), (&[5, 3][..], DType::U32));
        Ok(())
    }
}
