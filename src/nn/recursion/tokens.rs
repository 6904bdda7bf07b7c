//! The tokens that a recursion takes.

use super::super::attention::KvSource;
use super::RecursionUse;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::ops::{self, Claimed, Selected};

/// Tokens of each row side by side.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    /// Their states, `(B, K, C)`.
    pub states: Tensor,
    /// The position of each in its text, `(B, K)` u32.
    pub positions: Tensor,
    /// The spans of each, `(B, K, 3)` u32, if the text has a tree mask.
    pub tree: Option<Tensor>,
    /// The number of tokens of each row, `(B)` u32; none: all.
    pub lengths: Option<Tensor>,
    /// Whether some tokens of the text may be missing among them.
    pub packed: bool,
}

impl Tokens {
    /// The states as a matrix.
    pub(super) fn rows(&self, g: &mut Graph) -> Result<Tensor> {
        let (rows, d_model) = (g.shape(self.states).rows(), g.shape(self.states).last());
        ops::reshape(g, self.states, [rows, d_model])
    }

    /// The tokens that were selected of these; their states are rows of `matrix`, which has a row for each of these.
    pub(super) fn selected(&self, g: &mut Graph, matrix: Tensor, selected: &Selected) -> Result<Self> {
        let rows = ops::gather_unique(g, matrix, selected.index, selected.inverse)?;
        let [batch, _] = g.shape(self.positions).expect("positions")?;
        let states = ops::reshape(g, rows, [batch, selected.slots, g.shape(matrix).last()])?;
        let tree = match self.tree {
            Some(tree) => {
                let rows = g.shape(tree).rows();
                let spans = ops::reshape(g, tree, [rows, 3])?;
                let spans = ops::gather_words(g, spans, selected.index)?;
                Some(ops::reshape(g, spans, [batch, selected.slots, 3])?)
            }
            None => None,
        };
        let positions = selected.positions;
        Ok(Self { states, positions, tree, lengths: Some(selected.counts), packed: true })
    }

    /// The lengths that products are told, so that rows that are not there cost nothing. Few rows of several texts are better
    /// taken as one matrix.
    #[must_use]
    pub fn ragged(&self, g: &Graph) -> Option<Tensor> {
        let worth = matches!(*g.shape(self.positions).dims(), [batch, count] if batch == 1 || count > 8);
        self.lengths.filter(|_| self.packed && worth)
    }

    /// What attention is told of these tokens in recursion `recursion` of the block, given what it is told of all tokens. `kv_sharing`:
    /// later recursions keep nothing of their own.
    pub(super) fn kv(
        &self,
        g: &mut Graph,
        with: RecursionUse<'_>,
        recursion: usize,
        kv_sharing: bool,
    ) -> Result<KvSource> {
        let (capacity, lengths, cache_is_empty, beams) = match with.kv {
            KvSource::Prefill { capacity, lengths, beams } => (capacity, lengths, true, beams),
            KvSource::Decode { capacity, lengths } => (capacity, lengths, false, 1),
            _ => return Ok(KvSource::Packed { lengths: self.lengths }),
        };
        match self.lengths.filter(|_| self.packed) {
            _ if kv_sharing && recursion > 0 => Ok(KvSource::Packed { lengths: self.lengths }),
            Some(counts) => {
                let [batch, slots] = g.shape(self.positions).expect("positions")?;
                let rows = batch * beams;
                let used = g.state(&format!("{}recursions.{recursion}.used", with.prefix), [rows], DType::U32)?;
                let Claimed { slots, lengths, .. } = ops::claim_slots(g, used, counts, slots, cache_is_empty)?;
                let positions = match with.by_distance {
                    true => {
                        let name = format!("{}recursions.{recursion}.slot_positions", with.prefix);
                        let kept = g.state(&name, [rows, capacity], DType::U32)?;
                        Some(ops::keep_positions(g, kept, slots, self.positions)?)
                    }
                    false => None,
                };
                Ok(KvSource::Slots { recursion, capacity, slots, lengths, positions, cache_is_empty, beams })
            }
            None => {
                let (slots, positions) = (self.positions, None);
                Ok(KvSource::Slots { recursion, capacity, slots, lengths, positions, cache_is_empty, beams })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_without_axes_have_no_lengths() -> Result<()> {
        let mut g = Graph::new();
        let states = g.input("states", [1, 9, 4], DType::F32)?;
        let lengths = Some(g.input("lengths", [1], DType::U32)?);
        let [flat, positions] = [g.input("flat", Vec::new(), DType::U32)?, g.input("positions", [1, 9], DType::U32)?];
        let tokens = Tokens { states, positions: flat, tree: None, lengths, packed: true };
        assert_eq!(tokens.ragged(&g), None);
        assert_eq!(Tokens { positions, ..tokens }.ragged(&g), lengths);
        Ok(())
    }
}
