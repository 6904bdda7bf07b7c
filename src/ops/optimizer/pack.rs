//! Packs tensors into a flat range.

use super::{expect_flat, expect_vector};
use crate::case::{Case, Feed};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor, WriteInto};
use crate::kernel::{Dispatch, Kernel, Launch, View, kernel};
use crate::shape::TensorType;

static PACK: Kernel = kernel!("optimizer/pack");
static PACK_ACCUMULATE: Kernel = kernel!("optimizer/pack_accumulate");

/// [`pack`] as an op. Inputs: `flat`, then `keep` (1 element) if [`Pack::accumulate`] is set, then the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pack {
    /// The offset of each part in the flat range, in elements: multiples of [`BLOCK`](super::BLOCK).
    pub offsets: Vec<usize>,
    /// Whether input 1 is the `keep` scalar.
    pub accumulate: bool,
}

impl Pack {
    /// The index of the first part among the inputs.
    #[must_use]
    pub(super) fn first_part(&self) -> usize {
        1 + usize::from(self.accumulate)
    }
}

impl Op for Pack {
    fn name(&self) -> &'static str {
        if self.accumulate { "pack_accumulate" } else { "pack" }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let name = self.name();
        super::expect_count(name, inputs, self.first_part() + self.offsets.len())?;
        let total = expect_flat(name, "the flat range", &inputs[0])?;
        if self.accumulate {
            expect_vector(name, "keep", &inputs[1], 1)?;
        }
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for (index, (&offset, part)) in self.offsets.iter().zip(&inputs[self.first_part()..]).enumerate() {
            let end = offset.saturating_add(part.shape.numel());
            if part.dtype != DType::F32 || end > total || !offset.is_multiple_of(super::BLOCK) {
                let what = format!("part {index} ({part} at {offset}) does not fit a flat range of {total}");
                return Err(Error::shape(name, what));
            }
            taken.push((offset, end));
        }
        taken.sort_unstable();
        match taken.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            None => Ok(vec![inputs[0].clone()]),
            Some(pair) => Err(Error::shape(name, format!("the parts at {} and {} overlap", pair[0].0, pair[1].0))),
        }
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut flat = inputs[0].clone();
        let keeps = self.accumulate && inputs[1].data[0] != 0.0;
        for (&offset, part) in self.offsets.iter().zip(&inputs[self.first_part()..]) {
            for (to, from) in flat.data[offset..].iter_mut().zip(&part.data) {
                *to = if keeps { *to + from } else { *from };
            }
        }
        Ok(vec![flat])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        for (index, &offset) in self.offsets.iter().enumerate() {
            let (part, flat) = (cx.input(self.first_part() + index), cx.output(0));
            if part.slot == flat.slot {
                // Its producer wrote it in place.
                continue;
            }
            let target = View { start: flat.start + offset, ..flat };
            for range in cx.windows(part.numel()) {
                let (part, target) = (part.window(&range), target.window(&range));
                let count = range.len();
                let dispatch = if self.accumulate {
                    Dispatch::new(&PACK_ACCUMULATE).read(part).read(cx.input(1)).update(target).flops(count as u64)
                } else {
                    Dispatch::new(&PACK).read(part).write(target)
                };
                cx.dispatch(dispatch.param(count).groups_for(count, 256))?;
            }
        }
        Ok(())
    }

    fn alias(&self, _index: usize) -> Option<Alias> {
        Some(Alias::InPlace(0))
    }

    fn write_into(&self) -> Vec<WriteInto> {
        if self.accumulate {
            return Vec::new();
        }
        let parts = self.offsets.iter().enumerate();
        parts.map(|(index, &offset)| WriteInto { input: self.first_part() + index, into: 0, offset }).collect()
    }
}

/// `flat[offset + i] = part[i]` for each part and its offset in elements, in place. With a `keep` scalar that is not 0,
/// `flat[offset + i] += part[i]`, which sums gradients over micro-batches.
///
/// `flat` is a flat range, the parts are f32 of any shape. Elements between the parts are not changed. No gradient.
///
/// # Errors
/// [`Error::Shape`] if `flat` is no flat range, or a part does not fit, is not f32, or overlaps another.
pub fn pack(g: &mut Graph, flat: Tensor, parts: &[(Tensor, usize)], keep: Option<Tensor>) -> Result<Tensor> {
    let op = Pack { offsets: parts.iter().map(|part| part.1).collect(), accumulate: keep.is_some() };
    let inputs: Vec<Tensor> = [flat].into_iter().chain(keep).chain(parts.iter().map(|part| part.0)).collect();
    g.put1(op, &inputs)
}

/// The conformance cases.
pub(super) fn cases() -> Vec<Case> {
    let parts = || {
        vec![
            Feed::normal("a", [1]).fixed(),
            Feed::normal("b", [31, 33]).fixed(),
            Feed::normal("c", [257]).fixed(),
            Feed::normal("d", [64]).fixed(),
        ]
    };
    let target = |x: &[Tensor]| [(x[0], 0), (x[1], 128), (x[2], 128 + 1024), (x[3], 1664 - 64)];
    let mut cases = vec![Case::new("pack", parts(), move |g, x| {
        let flat = g.state("flat", [1664], DType::F32)?;
        Ok(vec![pack(g, flat, &target(x), None)?])
    })];
    for keep in [0.0, 1.0] {
        let mut feeds = parts();
        feeds.push(Feed::given("keep", [1], DType::F32, [keep]));
        cases.push(Case::new(format!("pack_accumulate keep {keep}"), feeds, move |g, x| {
            let flat = g.state("flat", [1664], DType::F32)?;
            let before = pack(g, flat, &target(x), None)?;
            Ok(vec![pack(g, before, &target(x), Some(x[4]))?])
        }));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack_error(offsets: [usize; 2]) -> String {
        let mut g = Graph::new();
        let flat = g.state("flat", [128], DType::F32).unwrap();
        let a = g.input("a", [10], DType::F32).unwrap();
        let b = g.input("b", [3, 5], DType::F32).unwrap();
        pack(&mut g, flat, &[(a, offsets[0]), (b, offsets[1])], None).unwrap_err().to_string()
    }

    #[test]
    fn misplaced_parts_are_refused() {
        assert!(pack_error([0, 10]).contains("part 1 (f32[3, 5] at 10) does not fit"));
        assert!(pack_error([128, 0]).contains("part 0 (f32[10] at 128) does not fit"));
        assert!(pack_error([usize::MAX - 63, 0]).contains("does not fit"));
        assert!(pack_error([64, 64]).contains("the parts at 64 and 64 overlap"));
    }

    #[test]
    fn a_range_that_is_not_flat_is_refused() {
        let mut g = Graph::new();
        let flat = g.state("flat", [100], DType::F32).unwrap();
        let error = pack(&mut g, flat, &[], None).unwrap_err().to_string();
        assert!(error.contains("f32[100], expected a flat range"), "{error}");
    }
}
