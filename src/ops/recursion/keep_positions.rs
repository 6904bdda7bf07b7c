//! Notes the positions of the tokens in slots of caches.

use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::shape::TensorType;

static KEEP_POSITIONS: Kernel = kernel!("recursion/keep_positions");

/// `kept[b·R, slots[b, k]] = positions[b, k]`, in place: the position in the text of the token in each slot of a cache, `kept` (B·R, S) u32, a
/// state, of whose R rows for each row of tokens (beams that begin alike) the first is written. `slots` (B, K) u32 are distinct within a row; those out of range, such as [`NONE`](super::NONE), are dropped. `positions` (B, K)
/// u32. The result is the state after the writes; nothing may read the old one afterwards. No gradient.
///
/// # Errors
/// [`Error::Shape`] if the operands do not fit together.
pub fn keep_positions(g: &mut Graph, kept: Tensor, slots: Tensor, positions: Tensor) -> Result<Tensor> {
    g.put1(KeepPositions, &[kept, slots, positions])
}

/// See [`keep_positions`].
#[derive(Debug)]
struct KeepPositions;

impl Op for KeepPositions {
    fn name(&self) -> &'static str {
        "keep_positions"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        match inputs {
            [kept, slots, positions] if slots == positions && kept.dtype == DType::U32 && slots.dtype == DType::U32 => {
                match (kept.shape.dims(), slots.shape.dims()) {
                    (&[rows, _], &[batch, _]) if slots.shape.numel() > 0 && rows.is_multiple_of(batch) => {
                        Ok(vec![kept.clone()])
                    }
                    _ => Err(misfit(inputs)),
                }
            }
            _ => Err(misfit(inputs)),
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let (mut kept, slots, positions) = (inputs[0].clone(), inputs[1], inputs[2]);
        let ([rows, size], [batch, count]) = (kept.shape.expect("kept")?, slots.shape.expect("slots")?);
        let beams = rows / batch;
        for (i, (&slot, &position)) in slots.data.iter().zip(&positions.data).enumerate() {
            if slot < size as f64 {
                kept.data[i / count * beams * size + slot as usize] = position;
            }
        }
        Ok(vec![kept])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (slots, positions, kept) = (cx.input(1), cx.input(2), cx.output(0));
        let ([rows, size], [batch, count]) = (kept.shape.expect::<2>("kept")?, slots.shape.expect::<2>("slots")?);
        let all = slots.numel();
        let dispatch = Dispatch::new(&KEEP_POSITIONS).read(slots).read(positions).update(kept);
        cx.dispatch(dispatch.param(all).param(count).param(size).param(size * (rows / batch)).groups_for(all, 64))
    }

    fn alias(&self, _: usize) -> Option<Alias> {
        Some(Alias::InPlace(0))
    }
}

fn misfit(inputs: &[TensorType]) -> Error {
    let got = inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Error::shape("keep_positions", format!("expected u32 kept (B·R, S), slots (B, K) and positions (B, K), got {got}"))
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, size, count, beams) in [(1, 5, 1, 1), (2, 9, 4, 1), (3, 129, 67, 1), (2, 9, 4, 3)] {
        // Some slots lie outside.
        let slot = move |i: usize| if i % 5 == 3 { 4_294_967_295.0 } else { ((i % count) * 2 + i / count) as f64 };
        let slots = Feed::given("slots", [batch, count], DType::U32, (0..batch * count).map(slot));
        let positions = (0..batch * count).map(|i| (i * 3 + 1) as f64);
        let feeds = vec![slots, Feed::given("positions", [batch, count], DType::U32, positions)];
        let rows = batch * beams;
        let name = format!("keep_positions [{batch}, {count}] of [{rows}, {size}]");
        cases.push(Case::new(name, feeds, move |g, x| {
            let kept = g.state("slot_positions", [rows, size], DType::U32)?;
            Ok(vec![keep_positions(g, kept, x[0], x[1])?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misfits_are_refused_by_name() -> Result<()> {
        let mut g = Graph::new();
        let kept = g.state("kept", [2, 8], DType::U32)?;
        let [slots, other] = [g.input("slots", [2, 3], DType::U32)?, g.input("other", [3, 3], DType::U32)?];
        let [float, flat] = [g.input("float", [2, 3], DType::F32)?, g.input("flat", [2], DType::U32)?];
        let out = keep_positions(&mut g, kept, slots, slots)?;
        assert_eq!(g.shape(out).dims(), [2, 8]);
        for [slots, positions] in [[other, other], [slots, other], [float, float], [flat, flat]] {
            let message = keep_positions(&mut g, kept, slots, positions).unwrap_err().to_string();
            assert!(message.starts_with("keep_positions: expected u32 kept (B·R, S)"), "{message}");
        }
        Ok(())
    }
}
