//! `ListOps`: nested operations on lists of digits, `[MAX 2 9 [MIN 4 7 ] 0 ]`, whose value a model must find. It has to
//! follow the brackets, so the task shows whether a model uses the tree of its text, and whether it generalises to greater
//! depth. Nangia and Bowman, 2018 (arXiv 1804.06028).
//!
//! A row is an expression and `=`; the label of `=` is the value, and no other token has one, but for closing brackets where
//! the values of their lists are taught, too ([`ListOps::lists`]). Expressions are generated, not read from a file: the same
//! task and seed give the same rows, row by row, wherever a run begins.

use crate::error::{Error, Result};
use crate::io::tree_mask::{Span, span_bytes, spans_of_brackets};
use crate::train::data::below;
use crate::train::{BatchSource, Feeds, HeldOut, IDS, IGNORED, LABELS, TREE_MASK};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The tokens by id.
pub const NAMES: [&str; 17] =
    ["<pad>", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[MAX", "[MIN", "[MED", "[SM", "]", "="];
/// Padding.
pub const PAD: u32 = 0;
/// The digit 0; the others follow.
pub const ZERO: u32 = 1;
/// The first of the four operators.
const FIRST_OPERATOR: u32 = 11;
/// Closes an operator's list.
pub const CLOSE: u32 = 15;
/// `=`, whose label is the value.
pub const EQUALS: u32 = 16;

/// The number in ten of arguments that are nested without need.
const NESTED_OF_TEN: u64 = 3;
/// One expression in eight, by a hash of its tokens, is held out.
const PARTS: u64 = 8;

/// An operator on a list of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operator {
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The median; of an even count the mean of the two in the middle, rounded down.
    Median,
    /// The sum modulo 10.
    SumModulo,
}

impl Operator {
    /// All operators, in the order of their ids.
    pub const ALL: [Self; 4] = [Self::Max, Self::Min, Self::Median, Self::SumModulo];

    /// The token that opens a list of it.
    #[must_use]
    pub fn id(self) -> u32 {
        FIRST_OPERATOR + self as u32
    }

    /// The operator that a token opens a list of.
    #[must_use]
    pub fn of(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|operator| operator.id() == id)
    }

    /// The result for a list; none for an empty one.
    #[must_use]
    pub fn apply(self, digits: &[u8]) -> Option<u8> {
        let mut sorted = digits.to_vec();
        sorted.sort_unstable();
        let (&smallest, &largest) = (sorted.first()?, sorted.last()?);
        Some(match self {
            Self::Max => largest,
            Self::Min => smallest,
            Self::Median => (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2,
            Self::SumModulo => (digits.iter().map(|&digit| u32::from(digit)).sum::<u32>() % 10) as u8,
        })
    }
}

/// The part of the expressions: for training, or held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// To train on.
    Train,
    /// To measure on.
    HeldOut,
}

/// A kind of expressions, and the rows they come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListOps {
    /// How deep operators are nested; every depth is equally frequent. A larger one than in training measures what
    /// generalises.
    pub depth: RangeInclusive<usize>,
    /// Arguments of an operator.
    pub arguments: RangeInclusive<usize>,
    /// Tokens of a row: an expression of one less at most, `=`, padding.
    pub length: usize,
    /// Whether batches have the spans of the tokens, as the input [`TREE_MASK`].
    pub tree: bool,
    /// Whether the closing bracket of each list has its value as a label in training: an intermediate result for each
    /// operator. Held-out rows have the label of `=` only.
    pub lists: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The expression and `=`.
    pub ids: Vec<u32>,
    /// The span of each token: an operator and its closing bracket cover their list, `=` covers all.
    pub spans: Vec<Span>,
    /// The value, 0 to 9.
    pub value: u8,
    /// How deep operators are nested.
    pub depth: usize,
}

impl ListOps {
    /// Refuses ranges that are empty and lengths that the deepest expression does not fit in.
    ///
    /// # Errors
    /// [`Error::Input`] that names the setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str, message: String| Err(Error::input(format!("ListOps {what}"), message));
        if self.depth.is_empty() || *self.depth.start() == 0 {
            return refuse("depth", format!("is {:?}; it must be 1 or more, and not empty", self.depth));
        }
        if self.arguments.is_empty() || *self.arguments.start() < 2 {
            return refuse("arguments", format!("are {:?}; they must be 2 or more, and not empty", self.arguments));
        }
        let shortest = self.shortest(*self.depth.end()) + 1;
        if shortest > self.length {
            let (depth, length) = (self.depth.end(), self.length);
            return refuse("length", format!("is {length}; depth {depth} needs {shortest} tokens or more"));
        }
        Ok(())
    }

    /// The tokens of the shortest expression of a depth.
    fn shortest(&self, depth: usize) -> usize {
        1 + depth * (self.arguments.start() + 1)
    }

    /// The row of that number. Depths and values are equally frequent. The settings must have passed [`ListOps::check`].
    #[must_use]
    pub fn sample(&self, seed: u64, number: u64, split: Split) -> Sample {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number);
        let depth = between(&mut random, &self.depth);
        let value = below(&mut random, 10) as u8;
        loop {
            let mut ids = Vec::with_capacity(self.length);
            let found = self.generate(&mut random, depth, self.length.saturating_sub(1), &mut ids);
            let fits = hash(&ids).is_multiple_of(PARTS) == (split == Split::HeldOut);
            if found == value && fits {
                return Sample::new(ids, value, depth);
            }
        }
    }

    /// Appends an expression of exactly that depth with at most `budget` tokens, and gives its value.
    fn generate(&self, random: &mut ChaCha8Rng, depth: usize, budget: usize, ids: &mut Vec<u32>) -> u8 {
        if depth == 0 {
            let digit = below(random, 10) as u8;
            ids.push(ZERO + u32::from(digit));
            return digit;
        }
        // The tokens of all arguments together; one argument has the full depth.
        let mut rest = budget.saturating_sub(2);
        let deep = self.shortest(depth - 1);
        let (fewest, most) = (*self.arguments.start(), *self.arguments.end());
        let count = between(random, &(fewest..=most.min((rest + 1).saturating_sub(deep)).max(fewest)));
        let deepest = below(random, count as u64) as usize;
        rest = rest.saturating_sub(deep + count - 1);
        let operator = Operator::ALL[below(random, 4) as usize];
        ids.push(operator.id());
        let mut values = Vec::with_capacity(count);
        for argument in 0..count {
            // Tokens beyond the shortest arguments are shared evenly.
            let share = rest / (count - argument);
            let (depth, least) = if argument == deepest {
                (depth - 1, deep)
            } else {
                let affordable = (1..depth).take_while(|&depth| self.shortest(depth) <= 1 + share).last();
                let nested = affordable.filter(|_| below(random, 10) < NESTED_OF_TEN);
                (nested.map_or(0, |most| between(random, &(1..=most))), 1)
            };
            let before = ids.len();
            values.push(self.generate(random, depth, least + share, ids));
            rest = rest.saturating_sub(ids.len() - before - least);
        }
        ids.push(CLOSE);
        operator.apply(&values).unwrap_or(0)
    }

    /// The rows `numbers` as one batch.
    fn feeds(&self, rows: usize, seed: u64, numbers: impl Iterator<Item = u64>, split: Split) -> Feeds {
        let samples: Vec<Sample> = numbers.take(rows).map(|number| self.sample(seed, number, split)).collect();
        let (mut ids, mut labels, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            let sample = samples.get(row);
            let tokens = sample.map_or(&[][..], |sample| &sample.ids);
            let known = sample.map_or(&[][..], |sample| &sample.spans);
            let first = labels.len();
            labels.resize(first + self.length, IGNORED);
            if self.lists && split == Split::Train {
                // A generated expression has a value.
                let _ = walk(&tokens[..tokens.len().saturating_sub(1)], |at, value| {
                    labels[first + at] = (ZERO + u32::from(value)) as i32;
                });
            }
            if let Some(sample) = sample {
                labels[first + tokens.len() - 1] = sample.label() as i32;
            }
            for at in 0..self.length {
                ids.push(tokens.get(at).copied().unwrap_or(PAD));
                spans.push(known.get(at).copied().unwrap_or(Span::leaf(at)));
            }
        }
        let mut feeds: Feeds = vec![
            (IDS.into(), ids.into_iter().flat_map(u32::to_le_bytes).collect()),
            (LABELS.into(), labels.into_iter().flat_map(i32::to_le_bytes).collect()),
        ];
        if self.tree {
            feeds.push((TREE_MASK.into(), span_bytes(&spans)));
        }
        feeds
    }

    /// `count` held-out expressions, in batches of `rows` rows.
    ///
    /// # Errors
    /// As [`ListOps::check`].
    pub fn held_out(&self, rows: usize, count: usize, seed: u64) -> Result<Vec<HeldOut>> {
        self.check()?;
        let numbers: Vec<u64> = (0..count as u64).collect();
        let batch = |numbers: &[u64]| HeldOut {
            feeds: self.feeds(rows, seed, numbers.iter().copied(), Split::HeldOut),
            weight: numbers.len() as f64,
        };
        Ok(numbers.chunks(rows.max(1)).map(batch).collect())
    }
}

impl Sample {
    fn new(expression: Vec<u32>, value: u8, depth: usize) -> Self {
        let mut ids = expression;
        // Generated brackets are in pairs.
        let mut spans =
            spans_of_brackets(&ids, |&id| Operator::of(id).is_some(), |&id| id == CLOSE).unwrap_or_default();
        let end = ids.len() as u32;
        ids.push(EQUALS);
        spans.push(Span { position: end, first: 0, last: end });
        Self { ids, spans, value, depth }
    }

    /// The token that a model should answer with.
    #[must_use]
    pub fn label(&self) -> u32 {
        ZERO + u32::from(self.value)
    }

    /// The row in words.
    #[must_use]
    pub fn text(&self) -> String {
        let names = self.ids.iter().map(|&id| NAMES.get(id as usize).copied().unwrap_or("?"));
        names.collect::<Vec<_>>().join(" ")
    }
}

/// The value of an expression without its `=`.
///
/// # Errors
/// [`Error::Input`] with the position of the token that does not fit.
pub fn evaluate(expression: &[u32]) -> Result<u8> {
    walk(expression, |_, _| ())
}

/// As [`evaluate`], calling `closed` with the position of each closing bracket and the value of its list.
fn walk(expression: &[u32], mut closed: impl FnMut(usize, u8)) -> Result<u8> {
    let refuse = |at: usize, what: &str| {
        let name =
            expression.get(at).map_or("the end", |&id| NAMES.get(id as usize).copied().unwrap_or("an unknown id"));
        Err(Error::input("ListOps expression", format!("{name} at position {at} {what}")))
    };
    let mut open: Vec<(Operator, Vec<u8>)> = Vec::new();
    for (at, &id) in expression.iter().enumerate() {
        let value = match id {
            ZERO..FIRST_OPERATOR => (id - ZERO) as u8,
            CLOSE => match open.pop() {
                Some((operator, values)) => match operator.apply(&values) {
                    Some(value) => {
                        closed(at, value);
                        value
                    }
                    None => return refuse(at, "closes an empty list"),
                },
                None => return refuse(at, "closes no open list"),
            },
            _ => match Operator::of(id) {
                Some(operator) => {
                    open.push((operator, Vec::new()));
                    continue;
                }
                None => return refuse(at, "is not allowed in an expression"),
            },
        };
        match open.last_mut() {
            Some((_, values)) => values.push(value),
            None if at + 1 == expression.len() => return Ok(value),
            None => return refuse(at + 1, "follows a complete expression"),
        }
    }
    refuse(expression.len(), "ends an incomplete expression")
}

/// Endless batches of one task to train on.
#[derive(Clone, Debug)]
pub struct ListOpsBatches {
    task: ListOps,
    rows: usize,
    state: ListOpsState,
    /// Tokens of the last batch.
    last: u64,
}

/// The position of a run in its expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListOpsState {
    /// The seed of the expressions.
    pub seed: u64,
    /// The number of expressions used so far.
    pub row: u64,
}

impl ListOpsBatches {
    /// Batches of `rows` rows from the beginning.
    ///
    /// # Errors
    /// [`Error::Input`] if there are no rows; as [`ListOps::check`].
    pub fn new(task: ListOps, rows: usize, seed: u64) -> Result<Self> {
        Self::resume(task, rows, ListOpsState { seed, row: 0 })
    }

    /// As [`ListOpsBatches::new`], from the position of an earlier run.
    ///
    /// # Errors
    /// As [`ListOpsBatches::new`].
    pub fn resume(task: ListOps, rows: usize, state: ListOpsState) -> Result<Self> {
        task.check()?;
        if rows == 0 {
            return Err(Error::input("batch", "it has 0 rows: give 1 or more"));
        }
        Ok(Self { task, rows, state, last: 0 })
    }
}

impl BatchSource for ListOpsBatches {
    fn next_feeds(&mut self) -> Result<Feeds> {
        let ListOpsState { seed, row } = self.state;
        self.state.row += self.rows as u64;
        let feeds = self.task.feeds(self.rows, seed, row.., Split::Train);
        let ids = feeds.iter().filter(|(name, _)| name == IDS).flat_map(|(_, bytes)| bytes.chunks_exact(4));
        self.last = ids.filter(|id| **id != PAD.to_le_bytes()).count() as u64;
        Ok(feeds)
    }

    fn position(&self) -> serde_json::Value {
        serde_json::json!({"seed": self.state.seed, "row": self.state.row})
    }

    fn tokens(&self) -> u64 {
        self.last
    }

    fn positions(&self) -> u64 {
        (self.rows * self.task.length) as u64
    }
}

/// A number of a range, every one equally likely; the lowest of an empty one.
fn between(random: &mut ChaCha8Rng, range: &RangeInclusive<usize>) -> usize {
    let count = (range.end() + 1).saturating_sub(*range.start()).max(1);
    range.start() + below(random, count as u64) as usize
}

/// A number that depends on every token (FNV-1a, and its high bits mixed in).
fn hash(ids: &[u32]) -> u64 {
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(0x0100_0000_01b3));
    hash ^ (hash >> 32)
}

#[cfg(test)]
#[path = "listops_tests.rs"]
mod tests;
