//! Changes and bans of single tokens.

use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Alias, Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, kernel};
use crate::ops;
use crate::shape::TensorType;
use std::collections::HashSet;

static EDIT_LOGITS: Kernel = kernel!("sampling/edit_logits");

/// The logit of a banned token: below all others, and finite.
pub const BANNED_LOGIT: f32 = -3e38;

/// The bit of an edit that bans.
const BAN: u32 = 1 << 31;

/// Words of an edit.
const WORDS: usize = 4;

/// What [`edit_logits`] does with the logit of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum LogitEdit {
    /// Nothing.
    None,
    /// Adds `add`, then divides by `divide` what is not negative and multiplies by `multiply` what is.
    Change {
        /// The token.
        token: u32,
        /// What is added.
        add: f32,
        /// The divisor of what is not negative, not 0.
        divide: f32,
        /// The factor of what is negative.
        multiply: f32,
    },
    /// Makes it [`BANNED_LOGIT`].
    Ban(u32),
}

impl LogitEdit {
    /// The penalty of a token that occurred: Keskar et al., arXiv 1909.05858.
    #[must_use]
    pub fn penalise(token: u32, penalty: f32) -> Self {
        Self::Change { token, add: 0.0, divide: penalty, multiply: penalty }
    }

    /// The edit as words of the input of [`edit_logits`].
    #[must_use]
    pub fn words(self) -> [u32; WORDS] {
        match self {
            Self::None => [u32::MAX, 0, 1.0_f32.to_bits(), 1.0_f32.to_bits()],
            Self::Change { token, add, divide, multiply } => {
                [token & !BAN, add.to_bits(), divide.to_bits(), multiply.to_bits()]
            }
            Self::Ban(token) => [token | BAN, 0, 1.0_f32.to_bits(), 1.0_f32.to_bits()],
        }
    }
}

/// Edits the logits of some tokens in place: for each edit of row n, of a token i, `y = x[n, i] + add`, then `x[n, i] = y / divide`, or
/// `y · multiply` where y is negative; or it bans the token ([`LogitEdit`]).
///
/// Shapes: `x` (N, V) f32, computed by the graph; `edits` (N, M, 4) u32, [`LogitEdit::words`] of distinct tokens in each row. Tokens that are out
/// of range are not edited. The result is `x` afterwards; nothing may read the old one. No gradient.
///
/// # Errors
/// [`Error::Shape`] with the operand that does not fit.
pub fn edit_logits(g: &mut Graph, x: Tensor, edits: Tensor) -> Result<Tensor> {
    g.put1(EditLogits, &[x, edits])
}

/// See [`edit_logits`].
#[derive(Debug)]
struct EditLogits;

impl Op for EditLogits {
    fn name(&self) -> &'static str {
        "edit_logits"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, edits] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 2 tensors, got {}", inputs.len())));
        };
        let rows = match x.shape.dims() {
            &[rows, columns] if x.dtype == DType::F32 && rows * columns > 0 => rows,
            _ => return Err(Error::shape(self.name(), format!("expected f32 logits (N, V), got {x}"))),
        };
        if !matches!(edits.shape.dims(), &[n, m, WORDS] if n == rows && m > 0) || edits.dtype != DType::U32 {
            return Err(Error::shape(self.name(), format!("expected u32 edits (N, M, 4) of {rows} rows, got {edits}")));
        }
        Ok(vec![x.clone()])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let mut x = inputs[0].clone();
        let rows = x.shape.rows();
        let of_row = inputs[1].data.len() / rows.max(1);
        for row in 0..rows {
            for words in inputs[1].data[row * of_row..][..of_row].chunks_exact(WORDS) {
                let token = words[0] as u32;
                let [add, divide, multiply] = [1, 2, 3].map(|i| f64::from(f32::from_bits(words[i] as u32)));
                if let Some(logit) = x.row_mut(row).get_mut((token & !BAN) as usize) {
                    let moved = *logit + add;
                    *logit = match token & BAN != 0 {
                        true => f64::from(BANNED_LOGIT),
                        false if moved < 0.0 => moved * multiply,
                        false => moved / divide,
                    };
                }
            }
        }
        Ok(vec![x])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (vocabulary, edits) = (cx.input(0).shape.last(), cx.input(1));
        let [rows, of_row, _] = edits.shape.expect("edit_logits, edits (N, M, 4)")?;
        let dispatch = Dispatch::new(&EDIT_LOGITS).read(edits).update(cx.output(0));
        let count = rows * of_row;
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
        let mut seen = HashSet::new();
        let words = (0..rows * edits).flat_map(|i| {
            let (row, token) = (i / edits, (i % edits * 5 + i / edits) as u32 % (vocabulary as u32 + 2));
            let [add, divide, multiply] = [(i % 3) as f32 - 1.0, 1.25 + row as f32, 1.5 - (i % 5) as f32 * 0.5];
            let edit = match i % 7 {
                // Tokens of a row are distinct.
                _ if !seen.insert((row, token)) => LogitEdit::None,
                3 => LogitEdit::None,
                0 | 4 => LogitEdit::penalise(token, divide),
                1 | 2 => LogitEdit::Change { token, add, divide, multiply },
                _ => LogitEdit::Ban(token),
            };
            edit.words().map(f64::from)
        });
        let words: Vec<f64> = words.collect();
        let feeds = vec![
            Feed::normal("x", [rows, vocabulary]).fixed(),
            Feed::given("edits", [rows, edits, WORDS], DType::U32, words.into_iter()),
        ];
        let name = format!("edit_logits [{rows}, {vocabulary}], {edits} edits");
        let case = Case::new(name, feeds, |g, x| {
            let logits = ops::scale(g, x[0], 1.0)?;
            let edited = edit_logits(g, logits, x[1])?;
            Ok(vec![ops::activation(g, edited, ops::Activation::Tanh)?])
        });
        cases.push(case.tolerance(Tolerance { nmse: 1e-10, worst: 2e-5 }, Tolerance::EXACT));
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_do_not_fit_are_named() -> Result<()> {
        let mut g = Graph::new();
        let x = g.input("x", [2, 9], DType::F32)?;
        let edits = g.input("edits", [2, 3, 4], DType::U32)?;
        let flat = g.input("flat", [2, 12], DType::U32)?;
        let mut refused = |x, edits| edit_logits(&mut g, x, edits).unwrap_err().to_string();
        assert_eq!(refused(edits, edits), "edit_logits: expected f32 logits (N, V), got u32[2, 3, 4]");
        assert_eq!(refused(x, flat), "edit_logits: expected u32 edits (N, M, 4) of 2 rows, got u32[2, 12]");
        Ok(())
    }
}
