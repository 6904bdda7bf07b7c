//! Half-precision copies of f32 weights.

use super::as_state;
use super::{BLOCK, expect_count, expect_flat};
use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static CAST_HALF: Kernel = kernel!("optimizer/cast_half");

/// [`cast_half`] as an op. Inputs: source, target. Output: the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CastHalf {
    /// The type of the target.
    pub dtype: DType,
}

impl CastHalf {
    /// The value that the kernel stores for `x`.
    #[must_use]
    pub(crate) fn round(self, x: f64) -> f64 {
        let largest = match self.dtype {
            DType::BF16 => half::bf16::MAX.to_f64(),
            _ => half::f16::MAX.to_f64(),
        };
        let rounded = self.dtype.round(x);
        if rounded.is_infinite() { largest.copysign(x) } else { rounded }
    }
}

impl Op for CastHalf {
    fn name(&self) -> &'static str {
        "cast_half"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        expect_count("cast_half", inputs, 2)?;
        let count = expect_flat("cast_half", "the source", &inputs[0])?;
        let target = &inputs[1];
        let fits = target.shape.rank() == 1
            && matches!(self.dtype, DType::F16 | DType::BF16)
            && target.dtype == self.dtype
            && target.shape.numel().is_multiple_of(BLOCK)
            && target.shape.numel() <= count;
        if !fits {
            let what =
                format!("the target is {target}, expected f16 or bf16[k], k a multiple of {BLOCK} up to {count}");
            return Err(Error::shape("cast_half", what));
        }
        Ok(vec![target.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let count = inputs[1].data.len();
        Ok(vec![Array::from_fn([count], |i| self.round(inputs[0].data[i]))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        for range in cx.windows(cx.output(0).numel()) {
            let vectors = range.len() / 4;
            cx.dispatch(
                Dispatch::new(&CAST_HALF)
                    .constant("BRAIN", self.dtype == DType::BF16)
                    .read(cx.input(0).window(&range))
                    .write(cx.output(0).window(&range))
                    .param(vectors)
                    .groups_for(vectors, 64),
            )?;
        }
        Ok(())
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::InPlace(1))
    }
}

/// `target[i] = round(source[i])` for the elements of `target`, in place; to nearest, ties to even. Too large values saturate to the largest
/// finite value of the type.
///
/// `source` (n) f32, a flat range; `target` (k ≤ n) f16 or bf16, k a multiple of 64. No gradient.
///
/// # Errors
/// [`Error::Shape`] if `source` is no flat range, or `target` is not f16 or bf16 or longer.
pub(crate) fn cast_half(g: &mut Graph, source: Tensor, target: Tensor) -> Result<Tensor> {
    let dtype = g.dtype(target);
    g.put1(CastHalf { dtype }, &[source, target])
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    vec![case(DType::F16, 1), case(DType::F16, 33), case(DType::BF16, 1), case(DType::BF16, 33)]
}

/// Values around every edge: ties, subnormals, the ends of the range.
fn case(dtype: DType, blocks: usize) -> Case {
    let count = blocks * BLOCK;
    let edges = [
        0.0,
        -0.0,
        1.0,
        1.000_488_281_25,
        1.001_464_843_75,
        65504.0,
        65519.99,
        65520.0,
        -70000.0,
        6.1e-5,
        6.097_555e-5,
        5.96e-8,
        2.98e-8,
        2.980_232_3e-8,
        8.94e-8,
        1e-9,
        -3.4e38,
        3.39e38,
        1.003_906_25,
        1.011_718_75,
        2049.0,
        2051.0,
        -6.103_515_6e-5,
        6.100_5e-5,
    ];
    let value = move |i: usize| match edges.get(i) {
        Some(&edge) => edge,
        None => ((i * 7919) as f64).sin() * 10_f64.powi((i % 13) as i32 - 9),
    };
    let feeds = vec![Feed::given("x", [count], DType::F32, (0..count).map(move |i| DType::F32.round(value(i))))];
    Case::new(format!("cast_half {dtype} blocks {blocks}"), feeds, move |g, x| {
        let source = as_state(g, "source", x[0])?;
        let target = g.state("target", [count], dtype)?;
        Ok(vec![cast_half(g, source, target)?])
    })
    .tolerance(Tolerance::EXACT, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_another_type_or_size_is_refused() {
        let mut g = Graph::new();
        let source = g.state("source", [128], DType::F32).unwrap();
        for (name, count, dtype) in [("a", 128, DType::F32), ("b", 192, DType::F16), ("c", 65, DType::BF16)] {
            let target = g.state(name, [count], dtype).unwrap();
            let error = cast_half(&mut g, source, target).unwrap_err().to_string();
            assert!(error.contains("expected f16 or bf16[k], k a multiple of 64 up to 128"), "{error}");
        }
    }

    #[test]
    fn the_range_ends_at_the_largest_value() {
        let cast = CastHalf { dtype: DType::F16 };
        assert_eq!([65519.0, 65520.0, -1e9].map(|x| cast.round(x)), [65504.0, 65504.0, -65504.0]);
        assert!(cast.round(f64::NAN).is_nan());
    }
}
