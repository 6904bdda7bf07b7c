//! Capacities that shrink over the first steps of training.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::shape::TensorType;

static WARM_CAPACITY: Kernel = kernel!("recursion/warm_capacity");

/// The most steps that an f32 can count exactly.
pub(crate) const MOST_STEPS: usize = 1 << 24;

/// The result of [`warm_capacity`].
#[derive(Clone, Copy, Debug)]
pub struct WarmCapacity {
    /// The step afterwards, (1) f32.
    pub step: Tensor,
    /// (R) u32: the number of tokens of each recursion.
    pub counts: Tensor,
}

/// `counts[r] = k_r + ⌊(tokens − k_r) · ½ (1 + cos(π · min(1, s / steps)))⌋`, and `s += 1`, in place: `step` (1) f32 holds s, the number of
/// steps so far. The capacity falls from all `tokens` to k, the given `counts`, after `steps` steps. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the step is not (1) f32; [`Error::Input`] if there are no counts, one exceeds the tokens, or steps are 0 or more than
/// an f32 can count.
pub fn warm_capacity(
    g: &mut Graph,
    step: Tensor,
    counts: &[usize],
    tokens: usize,
    steps: usize,
) -> Result<WarmCapacity> {
    if !(1..=MOST_STEPS).contains(&steps) {
        return Err(Error::input("warm_capacity steps", format!("{steps} is not in 1..={MOST_STEPS}")));
    }
    if counts.is_empty() || counts.iter().any(|count| *count > tokens) {
        let what = format!("{counts:?} must be at least one count of at most {tokens} tokens");
        return Err(Error::input("warm_capacity counts", what));
    }
    let least = g.constant("counts", Array::from_fn([counts.len()], |r| counts[r] as f64), DType::U32);
    let found = g.put(Warm { tokens, steps }, &[step, least])?;
    Ok(WarmCapacity { step: found[0], counts: found[1] })
}

/// See [`warm_capacity`]. Inputs: step (1) f32, the counts after the warm-up (R) u32. Outputs: step, counts (R) u32.
#[derive(Debug)]
struct Warm {
    tokens: usize,
    steps: usize,
}

impl Op for Warm {
    fn name(&self) -> &'static str {
        "warm_capacity"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        if inputs[0] != TensorType::f32([1]) {
            return Err(Error::shape("warm_capacity", format!("expected the step to be f32[1], got {}", inputs[0])));
        }
        Ok(inputs.to_vec())
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let step = inputs[0].data[0];
        let done = (step / self.steps as f64).min(1.0);
        let share = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        let count = |least: f64| least + ((self.tokens as f64 - least) * share).floor();
        let least = inputs[1];
        let counts = Array::from_fn(least.shape.clone(), |r| count(least.data[r]));
        Ok(vec![Array::from_fn([1], |_| step + 1.0), counts])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (step, least) = (cx.output(0), cx.input(1));
        let recursions = least.numel();
        let dispatch = Dispatch::new(&WARM_CAPACITY).read(least).update(step).write(cx.output(1));
        cx.dispatch(dispatch.param(recursions).param(self.tokens).param(self.steps).groups(1))
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        (index == 0).then_some(Alias::InPlace(0))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (step, steps, tokens) in
        [(0, 1, 1), (1, 1, 31), (0, 33, 4096), (33, 33, 257), (1000, 33, 257), (2, 7, 100), (5, 7, 257), (13, 31, 33)]
    {
        cases.push(case(step, steps, tokens));
    }
    cases
}

/// Capacities of one step and the next.
fn case(step: usize, steps: usize, tokens: usize) -> Case {
    let feeds = vec![Feed::given("step", [1], DType::F32, [step as f64 / 2.0])];
    let counts = [tokens, tokens - tokens / 3, tokens / 3 + 1, 1];
    Case::new(format!("warm_capacity step {step} of {steps}, {tokens} tokens"), feeds, move |g, x| {
        // An input can't be updated in place.
        let now = ops::scale(g, x[0], 2.0)?;
        let first = warm_capacity(g, now, &counts[..3], tokens, steps)?;
        let next = warm_capacity(g, first.step, &counts, tokens, steps)?;
        Ok(vec![first.counts, next.counts, next.step])
    })
    .tolerance(Tolerance::EXACT, Tolerance::EXACT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fall_from_all_tokens_to_their_shares() -> Result<()> {
        let least = Array::new([3], vec![100.0, 67.0, 1.0])?;
        let at = |step: f64| -> Result<Vec<f64>> {
            let op = Warm { tokens: 100, steps: 7 };
            let mut out = op.reference(&[&Array::new([1], vec![step])?, &least])?;
            assert_eq!(out[0].data, [step + 1.0]);
            Ok(out.remove(1).data)
        };
        assert_eq!(at(0.0)?, [100.0, 100.0, 100.0]);
        assert_eq!(at(2.0)?, [100.0, 93.0, 81.0]);
        assert_eq!(at(7.0)?, least.data);
        assert_eq!(at(900.0)?, least.data);
        Ok(())
    }

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let step = g.input("step", [2], DType::F32)?;
        let mut refused = |counts: &[usize], steps| {
            warm_capacity(&mut g, step, counts, 9, steps).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
        };
        assert_eq!(refused(&[9, 3], 5), "warm_capacity: expected the step to be f32[1], got f32[2]");
        assert_eq!(refused(&[9], 0), "warm_capacity steps: 0 is not in 1..=16777216");
        let message = refused(&[10], 5);
        assert_eq!(message, "warm_capacity counts: [10] must be at least one count of at most 9 tokens");
        Ok(())
    }
}
