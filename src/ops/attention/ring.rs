//! Caches that keep the last tokens of each row.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops::NONE;
use crate::shape::TensorType;

static RING_SLOTS: Kernel = kernel!("attention/ring_slots");

/// Slots of new tokens in a cache that keeps the last `ring` tokens of each row, as a ring, and the number of tokens that it then holds.
///
/// `slots[b, t] = positions[b, t] mod ring` for the tokens that the ring is to hold, `lengths[b] − ring ≤ positions[b, t] < lengths[b]`, and
/// [`NONE`] for older ones and padding; `held[b] = min(lengths[b], ring)`. A token whose window has `ring` tokens sees all that the ring holds, so that
/// attention needs neither window nor positions there.
///
/// Shapes: `positions` (B, T) u32; `lengths` (B) u32, the tokens of each row with the new ones; `slots` (B, T) u32; `held` (B) u32. No gradient.
///
/// # Errors
/// [`Error::Shape`] if an operand does not fit or the ring has no slot.
pub fn ring_slots(g: &mut Graph, positions: Tensor, lengths: Tensor, ring: usize) -> Result<(Tensor, Tensor)> {
    let found = g.put(RingSlots { ring }, &[positions, lengths])?;
    Ok((found[0], found[1]))
}

/// See [`ring_slots`].
#[derive(Debug)]
struct RingSlots {
    ring: usize,
}

impl Op for RingSlots {
    fn name(&self) -> &'static str {
        "ring_slots"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [positions, lengths] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 2 tensors, got {}", inputs.len())));
        };
        if self.ring == 0 {
            return Err(Error::shape(self.name(), "the ring has no slot".to_owned()));
        }
        match positions.shape.dims() {
            &[batch, tokens] if positions.dtype == DType::U32 && batch * tokens > 0 => {
                let expected = TensorType::new([batch], DType::U32);
                if *lengths != expected {
                    return Err(Error::shape(self.name(), format!("lengths is {lengths}, expected {expected}")));
                }
                Ok(vec![positions.clone(), expected])
            }
            _ => Err(Error::shape(self.name(), format!("expected u32 positions (B, T), got {positions}"))),
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (positions, lengths, ring) = (inputs[0], inputs[1], self.ring as f64);
        let tokens = positions.shape.last();
        let slots = Array::from_fn(positions.shape.clone(), |i| {
            let (position, length) = (positions.data[i], lengths.data[i / tokens]);
            let inside = position < length && length - position <= ring;
            if inside { position % ring } else { f64::from(NONE) }
        });
        Ok(vec![slots, lengths.map(|length| length.min(ring))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let positions = cx.input(0);
        let (count, tokens) = (positions.numel(), positions.shape.last());
        let dispatch = Dispatch::new(&RING_SLOTS).read(positions).read(cx.input(1));
        let dispatch = dispatch.write(cx.output(0)).write(cx.output(1));
        cx.dispatch(dispatch.param(count).param(tokens).param(self.ring).groups_for(count, 64))
    }
}

/// The conformance cases: rows shorter and longer than the ring, padding behind them.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, tokens, ring) in [(1, 1, 1), (3, 33, 8), (2, 257, 100)] {
        let positions = (0..batch * tokens).map(|i| (i % tokens + i / tokens) as f64);
        let lengths = (0..batch).map(|b| (tokens - b * tokens / 2) as f64);
        let feeds = vec![
            Feed::given("positions", [batch, tokens], DType::U32, positions),
            Feed::given("lengths", [batch], DType::U32, lengths),
        ];
        let case = Case::new(format!("ring_slots [{batch}, {tokens}], {ring} slots"), feeds, move |g, x| {
            let (slots, held) = ring_slots(g, x[0], x[1], ring)?;
            Ok(vec![slots, held])
        });
        cases.push(case.tolerance(Tolerance::EXACT, Tolerance::EXACT));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() -> Result<()> {
        let mut g = Graph::new();
        let positions = g.input("positions", [2, 9], DType::U32)?;
        let lengths = g.input("lengths", [3], DType::U32)?;
        let mut refused =
            |positions, lengths, ring| ring_slots(&mut g, positions, lengths, ring).unwrap_err().to_string();
        assert_eq!(refused(positions, lengths, 4), "ring_slots: lengths is u32[3], expected u32[2]");
        assert_eq!(refused(lengths, lengths, 4), "ring_slots: expected u32 positions (B, T), got u32[3]");
        assert_eq!(refused(positions, lengths, 0), "ring_slots: the ring has no slot");
        Ok(())
    }
}
