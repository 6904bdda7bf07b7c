//! The Euclidean norm of all gradients together.

use super::{BLOCK, expect_flat};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::{Shape, TensorType};

static NORM_PARTIALS: Kernel = kernel!("optimizer/global_norm_partials");
static NORM_FINAL: Kernel = kernel!("optimizer/global_norm_final");

/// Elements that one workgroup of the first stage sums.
const CHUNK: usize = 4096;

/// An element of this size or more counts as not finite: below it, f32 sums of squares can't overflow.
const LARGEST: f64 = (1_u64 << 47) as f64;

/// [`global_norm`] as an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GlobalNorm;

impl Op for GlobalNorm {
    fn name(&self) -> &'static str {
        "global_norm"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs.is_empty() {
            return Err(Error::shape("global_norm", "expected at least one flat range"));
        }
        for (index, input) in inputs.iter().enumerate() {
            expect_flat("global_norm", &format!("operand {index}"), input)?;
        }
        Ok(vec![TensorType::f32(Shape::default())])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let elements = || inputs.iter().flat_map(|flat| &flat.data);
        let finite = elements().all(|x| x.abs() < LARGEST);
        let norm = if finite { elements().map(|x| x * x).sum::<f64>().sqrt() } else { f64::NAN };
        Ok(vec![Array::scalar(norm)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let mut pieces = Vec::new();
        for index in 0..cx.input_count() {
            let flat = cx.input(index);
            pieces.extend(cx.windows(flat.numel()).iter().map(|range| flat.window(range)));
        }
        let total: usize = pieces.iter().map(|piece| piece.numel().div_ceil(CHUNK)).sum();
        let partials = cx.scratch([total], DType::F32);
        let mut first = 0;
        for piece in pieces {
            let count = piece.numel();
            let groups = count.div_ceil(CHUNK);
            cx.dispatch(
                Dispatch::new(&NORM_PARTIALS)
                    .read(piece)
                    .update(partials.clone())
                    .param(count / 4)
                    .param(first)
                    .groups(groups)
                    .flops(2 * count as u64),
            )?;
            first += groups;
        }
        cx.dispatch(Dispatch::new(&NORM_FINAL).read(partials).write(cx.output(0)).param(total).flops(total as u64))
    }
}

/// `norm = sqrt(Σ x²)` over all elements of `flats` together, f32 flat ranges, as a scalar; NaN if an element is NaN,
/// infinite, or 2^47 or more.
///
/// Two stages in a fixed order, so the same gradients give the same bits. No gradient.
///
/// # Errors
/// [`Error::Shape`] if an operand is no flat range.
pub fn global_norm(g: &mut Graph, flats: &[Tensor]) -> Result<Tensor> {
    g.put1(GlobalNorm, flats)
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for blocks in [vec![1], vec![31], vec![33, 1, 257]] {
        let names = ["a", "b", "c"];
        let feeds = blocks.iter().zip(names).map(|(n, name)| Feed::normal(name, [n * BLOCK]).fixed()).collect();
        cases.push(Case::new(format!("global_norm blocks {blocks:?}"), feeds, |g, x| Ok(vec![global_norm(g, x)?])));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_flat_is_refused() {
        let mut g = Graph::new();
        let x = g.input("x", [2, 64], DType::F32).unwrap();
        let error = global_norm(&mut g, &[x]).unwrap_err().to_string();
        assert!(error.contains("operand 0 is f32[2, 64], expected a flat range"), "{error}");
        assert!(global_norm(&mut g, &[]).unwrap_err().to_string().contains("at least one"));
    }

    #[test]
    fn what_is_not_finite_shows() {
        for bad in [f64::NAN, f64::INFINITY, -1e15] {
            let mut x = Array::zeros([64]);
            x.data[7] = bad;
            assert!(GlobalNorm.reference(&[&x]).unwrap()[0].data[0].is_nan());
        }
    }
}
