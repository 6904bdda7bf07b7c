//! Penalties and bans of single tokens.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::shape::TensorType;

static EDIT_LOGITS: Kernel = kernel!("sampling/edit_logits");

/// The logit of a banned token: below all others, and finite.
pub const BANNED_LOGIT: f32 = -3e38;

/// The bit of an edit that bans.
const BAN: u32 = 1 << 31;

/// What [`edit_logits`] does with the logit of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitEdit {
    /// Nothing.
    None,
    /// Divides it by the penalty of its row if it is positive, and multiplies it if it is negative.
    Penalise(u32),
    /// Makes it [`BANNED_LOGIT`].
    Ban(u32),
}

impl LogitEdit {
    /// The edit as a word of the input of [`edit_logits`].
    #[must_use]
    pub fn word(self) -> u32 {
        match self {
            Self::None => u32::MAX,
            Self::Penalise(token) => token & !BAN,
            Self::Ban(token) => token | BAN,
        }
    }
}

/// Edits the logits of some tokens in place: `x[n, i]` for each edit of row n, which divides it by `penalties[n]` (multiplies it where it is
/// negative) or bans it ([`LogitEdit`]).
///
/// Shapes: `x` (N, V) f32, computed by the graph; `edits` (N, M) u32, [`LogitEdit::word`] of distinct tokens in each row; `penalties` (N) f32,
/// more than 0. Tokens that are out of range are not edited. The result is `x` afterwards; nothing may read the old one. No gradient.
/// Penalties are those of Keskar et al., arXiv 1909.05858.
///
/// # Errors
/// [`Error::Shape`] with the operand that does not fit.
pub fn edit_logits(g: &mut Graph, x: Tensor, edits: Tensor, penalties: Tensor) -> Result<Tensor> {
    g.put1(EditLogits, &[x, edits, penalties])
}

/// See [`edit_logits`].
#[derive(Debug)]
struct EditLogits;

impl Op for EditLogits {
    fn name(&self) -> &'static str {
        "edit_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, edits, penalties] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 3 tensors, got {}", inputs.len())));
        };
        let [rows, _] = match x.shape.dims() {
            &[rows, columns] if x.dtype == DType::F32 && rows * columns > 0 => [rows, columns],
            _ => return Err(Error::shape(self.name(), format!("expected f32 logits (N, V), got {x}"))),
        };
        if !matches!(edits.shape.dims(), &[n, m] if n == rows && m > 0) || edits.dtype != DType::U32 {
            return Err(Error::shape(self.name(), format!("expected u32 edits of {rows} rows, got {edits}")));
        }
        let expected = TensorType::f32([rows]);
        if *penalties != expected {
            return Err(Error::shape(self.name(), format!("penalties is {penalties}, expected {expected}")));
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut x = inputs[0].clone();
        for row in 0..x.shape.rows() {
            let penalty = inputs[2].data[row];
            for &edit in inputs[1].row(row) {
                let (token, ban) = ((edit as u32 & !BAN) as usize, edit as u32 & BAN != 0);
                if let Some(logit) = x.row_mut(row).get_mut(token) {
                    *logit = match ban {
                        true => f64::from(BANNED_LOGIT),
                        false if *logit < 0.0 => *logit * penalty,
                        false => *logit / penalty,
                    };
                }
            }
        }
        Ok(vec![x])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (vocabulary, edits) = (cx.input(0).shape.last(), cx.input(1));
        let (count, of_row) = (edits.numel(), edits.shape.last());
        let dispatch = Dispatch::new(&EDIT_LOGITS).read(edits).read(cx.input(2)).update(cx.output(0));
        cx.dispatch(dispatch.param(count).param(of_row).param(vocabulary).groups_for(count, 64))
    }

    fn alias(&self, index: usize) -> Option<Alias> {
        Some(Alias::InPlace(index))
    }
}

/// The conformance cases. Banned logits are told apart by their sign, since their size would hide all other errors.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rows, vocabulary, edits) in [(1, 1, 1), (3, 33, 31), (2, 257, 70)] {
        let words = (0..rows * edits).map(|i| {
            let token = (i % edits * 5 + i / edits) as u32 % (vocabulary as u32 + 2);
            f64::from(match i % 7 {
                3 => LogitEdit::None.word(),
                n if n < 5 => LogitEdit::Penalise(token).word(),
                _ => LogitEdit::Ban(token).word(),
            })
        });
        // Tokens of a row are distinct where 5 and their number of values have no common divisor.
        let feeds = vec![
            Feed::normal("x", [rows, vocabulary]).fixed(),
            Feed::given("edits", [rows, edits], DType::U32, distinct(words, edits)),
            Feed::given("penalties", [rows], DType::F32, (0..rows).map(|i| 1.25 + i as f64)),
        ];
        let name = format!("edit_logits [{rows}, {vocabulary}], {edits} edits");
        let case = Case::new(name, feeds, |g, x| {
            let logits = ops::scale(g, x[0], 1.0)?;
            let edited = edit_logits(g, logits, x[1], x[2])?;
            Ok(vec![ops::activation(g, edited, ops::Activation::Tanh)?])
        });
        cases.push(case.tolerance(Tolerance { nmse: 1e-10, worst: 2e-5 }, Tolerance::EXACT));
    }
    cases
}

/// The words with repeated tokens of a row replaced by no edit.
fn distinct(words: impl Iterator<Item = f64>, edits: usize) -> Vec<f64> {
    let mut words: Vec<f64> = words.collect();
    for row in words.chunks_mut(edits) {
        let mut seen = std::collections::HashSet::new();
        for word in row {
            if !seen.insert(*word as u32 & !BAN) {
                *word = f64::from(LogitEdit::None.word());
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 9], DType::F32)?;
        let edits = g.input("edits", [2, 3], DType::U32)?;
        let penalties = g.input("penalties", [2], DType::F32)?;
        let other = g.input("other", [3, 3], DType::U32)?;
        let mut refused = |x, edits, penalties| edit_logits(&mut g, x, edits, penalties).unwrap_err().to_string();
        assert_eq!(refused(edits, edits, penalties), "edit_logits: expected f32 logits (N, V), got u32[2, 3]");
        assert_eq!(refused(x, other, penalties), "edit_logits: expected u32 edits of 2 rows, got u32[3, 3]");
        assert_eq!(refused(x, edits, x), "edit_logits: penalties is f32[2, 9], expected f32[2]");
        Ok(())
    }
}
