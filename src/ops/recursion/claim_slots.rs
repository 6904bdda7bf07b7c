//! Claims free slots of caches with contiguous tokens.

use super::select::NONE;
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static CLAIM_SLOTS: Kernel = kernel!("recursion/claim_slots");

/// The result of [`claim_slots`].
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    /// The state after the claim.
    pub used: Tensor,
    /// (B, K) u32: the slot of each new token, [`NONE`] after the last.
    pub slots: Tensor,
    /// (B) u32: the slots that new tokens see, including their own; 0 for rows without new tokens, so that attention skips them.
    pub lengths: Tensor,
}

/// `slots[b, k] = used[b·R] + k` where `k < counts[b]`, then `used[b·R] += counts[b]`, which is also `lengths[b]` where `counts[b]` is not 0:
/// gives `counts[b]` new tokens of each row (up to `max_tokens`) the next free slots of a cache, and counts them in `used` (B·R) u32, a state,
/// in place; of R rows of caches for each row (beams that begin alike) the first counts. `fresh`: the cache is empty, whatever `used` contains. No gradient.
///
/// # Errors
/// [`Error::Shape`] if counts and used are not u32 vectors, or the length of `used` is no multiple of that of `counts`.
pub fn claim_slots(g: &mut Graph, used: Tensor, counts: Tensor, max_tokens: usize, fresh: bool) -> Result<Claimed> {
    let found = g.put(ClaimSlots { max_tokens, fresh }, &[used, counts])?;
    Ok(Claimed { used: found[0], slots: found[1], lengths: found[2] })
}

/// See [`claim_slots`]. Outputs: used, slots (B, K), lengths (B).
#[derive(Debug)]
struct ClaimSlots {
    max_tokens: usize,
    fresh: bool,
}

/// Whether the state has one or more entries for each count.
fn fit(used: &TensorType, counts: &TensorType) -> bool {
    let vectors = [used, counts].iter().all(|one| one.dtype == DType::U32 && one.shape.rank() == 1);
    vectors && counts.shape.numel() > 0 && used.shape.numel().is_multiple_of(counts.shape.numel())
}

impl Op for ClaimSlots {
    fn name(&self) -> &'static str {
        "claim_slots"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs {
            [used, counts] if fit(used, counts) => {
                let slots = TensorType::new([counts.shape.numel(), self.max_tokens], DType::U32);
                Ok(vec![used.clone(), slots, counts.clone()])
            }
            [used, counts] => Err(Error::shape(
                "claim_slots",
                format!("expected u32 vectors with entries for each batch row, got {used} and {counts}"),
            )),
            _ => Err(Error::shape("claim_slots", format!("expected 2 tensors, got {}", inputs.len()))),
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (used, counts) = (inputs[0], inputs[1]);
        let beams = used.data.len() / counts.data.len().max(1);
        let first = |b: usize| if self.fresh { 0.0 } else { used.data[b * beams] };
        let slots = Array::from_fn([counts.data.len(), self.max_tokens], |i| {
            let (b, k) = (i / self.max_tokens, (i % self.max_tokens) as f64);
            if k < counts.data[b] { first(b) + k } else { f64::from(NONE) }
        });
        let claimed = |b: usize| first(b) + counts.data[b];
        let after = Array::from_fn(used.shape.clone(), |i| match i % beams {
            0 => claimed(i / beams),
            _ => used.data[i],
        });
        let seen = Array::from_fn(counts.shape.clone(), |b| if counts.data[b] > 0.0 { claimed(b) } else { 0.0 });
        Ok(vec![after, slots, seen])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (used, counts) = (cx.output(0), cx.input(1));
        let (batch, beams) = (counts.numel(), used.numel() / counts.numel().max(1));
        let dispatch = Dispatch::new(&CLAIM_SLOTS).constant("FRESH", self.fresh).read(counts).update(used);
        cx.dispatch(dispatch.write(cx.output(1)).write(cx.output(2)).param(self.max_tokens).param(beams).groups(batch))
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        (index == 0).then_some(Alias::InPlace(0))
    }
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, max_tokens, fresh, beams) in
        [(1, 1, false, 1), (3, 33, true, 1), (5, 257, false, 1), (9, 3, false, 1), (3, 9, false, 2)]
    {
        let words = |name, step: usize| {
            Feed::given(name, [batch], DType::U32, (0..batch).map(move |b| ((b * step + 1) % (max_tokens + 1)) as f64))
        };
        let beams_of = if beams == 1 { String::new() } else { format!(", {beams} beams") };
        let name = format!("claim_slots [{batch}, {max_tokens}], fresh: {fresh}{beams_of}");
        cases.push(Case::new(name, vec![words("used", 5), words("counts", 3)], move |g, x| {
            // An input cannot be updated in place: a state is, which is 0 at first, after a first claim.
            let used = g.state("slots.used", [batch * beams], DType::U32)?;
            let before = claim_slots(g, used, x[0], max_tokens, true)?;
            let again = claim_slots(g, before.used, x[1], max_tokens, fresh)?;
            Ok(vec![before.slots, before.lengths, again.slots, again.lengths])
        }));
    }
    cases
}
