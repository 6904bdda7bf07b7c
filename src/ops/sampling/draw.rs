//! The next token of each row.

use super::BANNED_LOGIT;
use crate::case::{Case, Feed, Tolerance};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Op, Tensor};
use crate::kernel::{Dispatch, Kernel, Launch, Snippet, kernel};
use crate::ops;
use crate::ops::recursion::select::ORDERED;
use crate::shape::TensorType;

static DRAW: Kernel = kernel!("sampling/draw");
static DRAW_LIMIT: Snippet = kernel!("common/draw_limit");
static DRAW_FEW: Snippet = kernel!("common/draw_few");

/// The result of [`draw`] for a row with a logit that is not finite.
pub const DAMAGED_ROW: u32 = u32::MAX;
/// The result of [`draw`] for a row whose tokens are all banned.
pub const BANNED_ROW: u32 = u32::MAX - 1;

/// Invocations of the workgroup of a row; the order of the running sum goes by it.
const LANES: usize = 256;
/// Passes that find a limit in a whole row: 32 bits of a key, three at a time.
const PASSES: usize = 11;

/// How [`draw`] chooses the token of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenChoice {
    /// 1 / temperature; 0: the likeliest token, the first of equals.
    pub scale: f32,
    /// There stay so many of the largest logits; 0: all.
    pub top_k: u32,
    /// There stay the fewest likeliest tokens with this share of the probability; 1: all.
    pub top_p: f32,
    /// There stay tokens with at least this share of the highest probability; 0: all.
    pub min_p: f32,
    /// A random number in [0, 1).
    pub random: f32,
}

impl TokenChoice {
    /// The choice as a row of the input of [`draw`].
    #[must_use]
    pub fn words(&self) -> [u32; 5] {
        [self.scale.to_bits(), self.top_k, self.top_p.to_bits(), self.min_p.to_bits(), self.random.to_bits()]
    }

    fn from_words(words: &[f64]) -> Self {
        let float = |i: usize| f32::from_bits(words[i] as u32);
        Self { scale: float(0), top_k: words[1] as u32, top_p: float(2), min_p: float(3), random: float(4) }
    }

    /// The token that [`draw`] chooses from one row of logits, in f64: its twin.
    #[must_use]
    pub fn of(&self, logits: &[f64]) -> u32 {
        if logits.iter().any(|x| !x.is_finite()) {
            return DAMAGED_ROW;
        }
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest <= f64::from(BANNED_LOGIT) {
            return BANNED_ROW;
        }
        let likeliest = logits.iter().position(|x| *x == largest).unwrap_or(0);
        if self.scale <= 0.0 {
            return likeliest as u32;
        }
        let weight = |x: f64| ((x - largest) * f64::from(self.scale)).exp();
        let mut sorted: Vec<f64> = logits.iter().copied().filter(|x| *x > f64::from(BANNED_LOGIT)).collect();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut least = sorted[sorted.len() - 1];
        if self.top_k > 0 {
            least = least.max(sorted[(self.top_k as usize).min(sorted.len()) - 1]);
            sorted.retain(|x| *x >= least);
        }
        if self.top_p < 1.0 {
            let wanted = f64::from(self.top_p) * sorted.iter().map(|x| weight(*x)).sum::<f64>();
            let mut reached = 0.0;
            let enough = sorted.iter().find(|x| {
                reached += weight(**x);
                reached >= wanted
            });
            least = enough.copied().unwrap_or(least);
        }
        let stays = |x: f64| x >= least && weight(x) >= f64::from(self.min_p);
        let order = (0..LANES).flat_map(|lane| (lane..logits.len()).step_by(LANES)).filter(|i| stays(logits[*i]));
        let order: Vec<usize> = order.collect();
        let mut left = f64::from(self.random) * order.iter().map(|i| weight(logits[*i])).sum::<f64>();
        let drawn = order.iter().find(|i| {
            left -= weight(logits[**i]);
            left < 0.0
        });
        drawn.or(order.last()).map_or(likeliest, |i| *i) as u32
    }
}

/// A token for each row of logits `x` (N, V) f32, as the row of `choices` (N, 5) u32 says ([`TokenChoice::words`]): (N) u32.
///
/// With temperature T = 1 / scale and m the largest logit of a row, `w_i = e^((x_i − m) / T)`. There stay the `top_k` largest logits; of these
/// the fewest largest ones with a share of at least `top_p` of the sum of their w (Holtzman et al., arXiv 1904.09751); of these those with
/// `w ≥ min_p` (Nguyen et al., arXiv 2407.01082). Equal logits stay together. The token is the one at which the running sum of w exceeds
/// `random` times the whole. Tokens with [`BANNED_LOGIT`] never come.
///
/// [`DAMAGED_ROW`] where a logit is not finite, [`BANNED_ROW`] where all tokens are banned. No gradient.
///
/// # Errors
/// [`Error::Shape`] with the operand that does not fit.
pub fn draw(g: &mut Graph, x: Tensor, choices: Tensor) -> Result<Tensor> {
    g.put1(Draw, &[x, choices])
}

/// See [`draw`].
#[derive(Debug)]
struct Draw;

impl Op for Draw {
    fn name(&self) -> &'static str {
        "draw"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>> {
        let [x, choices] = inputs else {
            return Err(Error::shape(self.name(), format!("expected 2 tensors, got {}", inputs.len())));
        };
        let rows = match x.shape.dims() {
            &[rows, columns] if x.dtype == DType::F32 && rows * columns > 0 => rows,
            _ => return Err(Error::shape(self.name(), format!("expected f32 logits (N, V), got {x}"))),
        };
        let expected = TensorType::new([rows, 5], DType::U32);
        if *choices != expected {
            return Err(Error::shape(self.name(), format!("choices is {choices}, expected {expected}")));
        }
        Ok(vec![TensorType::new([rows], DType::U32)])
    }

    fn reference(&self, inputs: &[&Array]) -> Result<Vec<Array>> {
        let rows = inputs[0].shape.rows();
        let of = |row: usize| TokenChoice::from_words(inputs[1].row(row)).of(inputs[0].row(row));
        Ok(vec![Array::from_fn([rows], |row| f64::from(of(row)))])
    }

    fn launch(&self, cx: &mut Launch<'_>) -> Result<()> {
        let (x, rows) = (cx.input(0), cx.output(0).numel());
        let (elements, vocabulary) = (x.numel(), x.shape.last());
        let dispatch = Dispatch::new(&DRAW).snippet(&ORDERED).snippet(&DRAW_LIMIT).snippet(&DRAW_FEW);
        let dispatch = dispatch.read(x).read(cx.input(1)).write(cx.output(0));
        cx.dispatch(dispatch.param(vocabulary).param(PASSES).groups(rows).flops(4 * elements as u64))
    }
}

/// The conformance cases: every rule alone and together, rows with banned and equal logits.
pub(super) fn cases() -> Vec<Case> {
    let choice = TokenChoice { scale: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, random: 0.0 };
    let rules = [
        TokenChoice { scale: 0.0, ..choice },
        choice,
        TokenChoice { top_k: 5, ..choice },
        TokenChoice { top_p: 0.7, ..choice },
        TokenChoice { min_p: 0.1, ..choice },
        TokenChoice { scale: 1.4, top_k: 31, top_p: 0.83, min_p: 0.01, ..choice },
        TokenChoice { scale: 0.5, top_k: 1, ..choice },
        TokenChoice { top_k: 128, top_p: 0.9, ..choice },
        TokenChoice { top_k: 300, top_p: 0.95, ..choice },
        TokenChoice { scale: 3.0, top_p: 0.6, ..choice },
    ];
    let mut cases = Vec::new();
    for vocabulary in [1, 31, 33, 257, 5003] {
        for (kind, draws) in [("", 3), (", banned", 2), (", few values", 1)] {
            let rows = rules.len() * draws;
            let words = (0..rows).flat_map(|row| {
                let random = ((row * 37 + 11) % 97) as f32 / 97.0;
                TokenChoice { random, ..rules[row % rules.len()] }.words().map(f64::from)
            });
            let banned = kind == ", banned";
            let edits = (0..rows * 4).flat_map(move |i| {
                let ban = banned && i / 4 % 3 != 0;
                let edit = if ban { ops::LogitEdit::Ban(i as u32 % 4) } else { ops::LogitEdit::None };
                edit.words().map(f64::from)
            });
            // So many are equal that no list has room for them.
            let few = (0..rows * vocabulary).map(|i| (i * 7 % 13 / 5) as f64);
            let logits = match kind {
                ", few values" => Feed::given("x", [rows, vocabulary], DType::F32, few),
                _ => Feed::normal_scaled("x", [rows, vocabulary], 0.0, 2.5).fixed(),
            };
            let feeds = vec![
                logits,
                Feed::given("choices", [rows, 5], DType::U32, words.collect::<Vec<_>>()),
                Feed::given("edits", [rows, 4, 4], DType::U32, edits.collect::<Vec<_>>()),
            ];
            let case = Case::new(format!("draw [{rows}, {vocabulary}]{kind}"), feeds, |g, x| {
                let logits = ops::scale(g, x[0], 1.0)?;
                let logits = ops::edit_logits(g, logits, x[2])?;
                Ok(vec![draw(g, logits, x[1])?])
            });
            cases.push(case.tolerance(Tolerance::EXACT, Tolerance::EXACT));
        }
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
        let choices = g.input("choices", [3, 5], DType::U32)?;
        assert_eq!(draw(&mut g, x, choices).unwrap_err().to_string(), "draw: choices is u32[3, 5], expected u32[2, 5]");
        let message = draw(&mut g, choices, choices).unwrap_err().to_string();
        assert_eq!(message, "draw: expected f32 logits (N, V), got u32[3, 5]");
        Ok(())
    }
}
