//! Random factors around 1.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Gradient, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops::random::threefry;
use crate::shape::TensorType;

static JITTER: Kernel = kernel!("arithmetic/jitter");
static RANDOM: Snippet = kernel!("common/random");

/// `out[i] = x[i] · (1 + amount · (2 u[i] − 1))`: each element of `x` (f32, any shape) times a number between `1 − amount` and `1 + amount`,
/// all of them equally likely. An amount of 0 adds nothing to the graph.
///
/// `u[i]` in [0, 1) comes from Threefry keyed by `seed` at counter (i / 2, `salt`). `seed` (2) u32 is written by the caller for each step;
/// `salt` distinguishes the uses of one step.
///
/// Gradient: the same op with the same seed and salt on the upstream gradient, so that no factor is stored.
///
/// Fedus et al., `Switch Transformers`, 2021 (arXiv 2101.03961).
///
/// # Errors
/// [`Error::Input`] if the amount is negative or not finite; [`Error::Shape`] if `x` is not f32 or `seed` not (2) u32.
pub fn jitter(g: &mut Graph, x: Tensor, amount: f32, seed: Tensor, salt: u32) -> Result<Tensor> {
    if !(amount >= 0.0 && amount.is_finite()) {
        return Err(Error::input("amount of jitter", format!("is {amount}; 0 or a positive number is needed")));
    }
    if amount == 0.0 {
        return Ok(x);
    }
    g.put1(Jitter { amount, salt }, &[x, seed])
}

/// See [`jitter`].
#[derive(Clone, Copy, Debug)]
struct Jitter {
    amount: f32,
    salt: u32,
}

impl Op for Jitter {
    fn name(&self) -> &'static str {
        "jitter"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let (x, seed) = (&inputs[0], &inputs[1]);
        if x.dtype != DType::F32 || *seed != TensorType::new([2], DType::U32) {
            let what = format!("expected x to be f32 and the seed u32[2], got {x} and {seed}");
            return Err(Error::shape(self.name(), what));
        }
        Ok(vec![x.clone()])
    }

    fn gradient(&self, cx: &mut Gradient<'_>) -> Result<Vec<Option<Tensor>>> {
        let upstream = cx.upstream(0)?;
        Ok(vec![Some(cx.graph.put1(*self, &[upstream, cx.inputs[1]])?), None])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (x, seed) = (inputs[0], [inputs[1].data[0] as u32, inputs[1].data[1] as u32]);
        let factor = |i: usize| {
            let word = threefry(seed, [(i / 2) as u32, self.salt])[i % 2];
            1.0 + f64::from(self.amount) * (f64::from(word >> 8) * 2_f64.powi(-23) - 1.0)
        };
        Ok(vec![Array::from_fn(x.shape.clone(), |i| x.data[i] * factor(i))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, seed, out) = (cx.input(0), cx.input(1), cx.output(0));
        let count = x.numel();
        let dispatch = Dispatch::new(&JITTER).snippet(&RANDOM).read(x).read(seed).write(out);
        let dispatch = dispatch.param(count).param(self.salt as usize).param_f32(self.amount);
        cx.dispatch(dispatch.groups_for(count.div_ceil(2), 64).flops(3 * count as u64))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (shape, amount, salt) in [(vec![1], 0.5, 0), (vec![31, 33], 0.01, 3), (vec![2, 5, 129], 1.5, u32::MAX)] {
        let seed = Feed::given("seed", [2], DType::U32, [4_000_000_007.0, 12_345.0]);
        let feeds = vec![Feed::normal("x", shape.clone()), seed];
        cases.push(Case::new(format!("jitter {shape:?} by {amount}"), feeds, move |g, x| {
            Ok(vec![jitter(g, x[0], amount, x[1], salt)?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_lie_around_1() -> Result<()> {
        let x = Array::from_fn([20000], |_| 1.0);
        let op = Jitter { amount: 0.2, salt: 7 };
        let found = op.reference(&[&x, &Array::new([2], vec![1.0, 2.0])?])?.remove(0).data;
        let (least, most) = found.iter().fold((9.0_f64, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
        assert!((0.8..0.801).contains(&least) && (1.199..=1.2).contains(&most), "{least} to {most}");
        let mean = found.iter().sum::<f64>() / 20000.0;
        assert!((mean - 1.0).abs() < 0.003, "{mean}");
        let variance = found.iter().map(|x| (x - 1.0).powi(2)).sum::<f64>() / 20000.0;
        assert!((variance - 0.04 / 3.0).abs() < 0.0003, "{variance}");
        Ok(())
    }

    #[test]
    fn an_amount_of_zero_adds_no_node_and_a_negative_one_is_refused() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [4], DType::F32)?;
        let seed = g.input("seed", [2], DType::U32)?;
        assert_eq!(jitter(&mut g, x, 0.0, seed, 0)?, x);
        let message = jitter(&mut g, x, -0.1, seed, 0).map(|_| String::new()).unwrap_or_else(|e| e.to_string());
        assert_eq!(message, "amount of jitter: is -0.1; 0 or a positive number is needed");
        assert!(jitter(&mut g, x, f32::INFINITY, seed, 0).is_err() && jitter(&mut g, seed, 0.1, seed, 0).is_err());
        Ok(())
    }
}
