//! Dropout from a counter-based generator.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops::random::threefry;
use crate::shape::TensorType;

static DROPOUT: Kernel = kernel!("arithmetic/dropout");
static RANDOM: Snippet = kernel!("common/random");

/// `out[i] = x[i] · keep[i] / (1 − rate)`: each element of `x` (f32, any shape) is dropped with probability `rate`. A
/// rate of 0 adds nothing to the graph.
///
/// `keep[i]` comes from Threefry keyed by `seed` at counter (i / 2, `salt`). `seed` (2) u32 is written by the caller
/// for each step; `salt` distinguishes the dropouts of one step.
///
/// Gradient: the same op with the same seed and salt on the upstream gradient, so that no mask is stored.
///
/// Srivastava et al., `Dropout: A Simple Way to Prevent Neural Networks from Overfitting`, 2014.
///
/// # Errors
/// [`Error::Input`] if the rate is not in 0..1; [`Error::Shape`] if `x` is not f32 or `seed` not (2) u32.
pub fn dropout(g: &mut Graph, x: Tensor, rate: f32, seed: Tensor, salt: u32) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        return Err(Error::input("dropout rate", format!("{rate} is not in [0, 1)")));
    }
    if rate == 0.0 {
        return Ok(x);
    }
    g.put1(Dropout { rate, salt }, &[x, seed])
}

/// See [`dropout`].
#[derive(Debug)]
struct Dropout {
    rate: f32,
    salt: u32,
}

impl Dropout {
    /// An element is dropped if its random word is below this.
    fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 2_f64.powi(32)) as u32
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, seed) = (&inputs[0], &inputs[1]);
        if x.dtype != DType::F32 || *seed != TensorType::new([2], DType::U32) {
            let what = format!("expected x to be f32 and the seed u32[2], got {x} and {seed}");
            return Err(Error::shape("dropout", what));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        let op = Self { rate: self.rate, salt: self.salt };
        Ok(vec![Some(cx.graph.put1(op, &[upstream, cx.inputs[1]])?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, seed) = (inputs[0], [inputs[1].data[0] as u32, inputs[1].data[1] as u32]);
        let scale = 1.0 / (1.0 - f64::from(self.rate));
        let element = |i: usize| {
            let random = threefry(seed, [(i / 2) as u32, self.salt])[i % 2];
            if random >= self.threshold() { x.data[i] * scale } else { 0.0 }
        };
        Ok(vec![Array::from_fn(x.shape.clone(), element)])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, seed, out) = (cx.input(0), cx.input(1), cx.output(0));
        let count = x.numel();
        cx.dispatch(
            Dispatch::new(&DROPOUT)
                .snippet(&RANDOM)
                .read(x)
                .read(seed)
                .write(out)
                .param(count)
                .param(self.salt as usize)
                .param(self.threshold() as usize)
                .param_f32((1.0 / (1.0 - f64::from(self.rate))) as f32)
                .groups_for(count.div_ceil(2), 64)
                .flops(count as u64),
        )
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, rate, salt) in
        [(vec![1], 0.5, 0), (vec![31, 33], 0.1, 3), (vec![257, 3], 0.4, 7), (vec![2, 5, 128], 0.9, u32::MAX)]
    {
        let seed = Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]);
        let feeds = vec![Feed::normal("x", shape.clone()), seed];
        cases.push(Case::new(format!("dropout {shape:?} rate {rate}"), feeds, move |g, x| {
            Ok(vec![dropout(g, x[0], rate, x[1], salt)?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_about_the_rate_and_keeps_the_mean() -> Result<()> {
        let x = Array::from_fn([20000], |_| 1.0);
        let out = Dropout { rate: 0.3, salt: 7 }.reference(&[&x, &Array::new([2], vec![1.0, 2.0])?])?.remove(0);
        let dropped = out.data.iter().filter(|&&y| y == 0.0).count() as f64 / 20000.0;
        assert!((dropped - 0.3).abs() < 0.015, "{dropped}");
        let mean = out.data.iter().sum::<f64>() / 20000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        Ok(())
    }

    #[test]
    fn a_rate_of_zero_adds_no_node_and_one_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4], DType::F32)?;
        let seed = g.input("seed", [2], DType::U32)?;
        assert_eq!(dropout(&mut g, x, 0.0, seed, 0)?, x);
        let message = dropout(&mut g, x, 1.0, seed, 0).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "dropout rate: 1 is not in [0, 1)");
        assert!(dropout(&mut g, x, f32::NAN, seed, 0).is_err());
        Ok(())
    }
}
