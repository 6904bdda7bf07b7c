//! Examples as rows of tokens with what is to be said about them, in batches of like length.

use super::contrastive::{CANDIDATES, Contrastive, candidates, own_targets};
use super::objective::IGNORED;
use super::packed::{MASK, has_experts};
use super::padded::in_batches;
use super::{Pooling, TaskObjective, task_of};
use crate::error::{Error, Result};
use crate::models::Model;
use crate::shape::Shape;
use crate::train::{BatchSource, DataState, Feeds, HeldOut, bucket, fingerprint, random_of_pass, shuffle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Weights of rows in the loss of numbers: `(B)` f32 that sum to 1.
pub(super) const WEIGHTS: &str = "label_weights";
/// The part of a text that each token belongs to.
const TYPES: &str = "token_type_ids";
/// The most sizes of batches.
const SIZES: usize = 6;

/// An example as the inputs of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The tokens of the text that is read.
    pub ids: Vec<u32>,
    /// For each of them the part of the text it belongs to; empty where a model does not tell parts apart.
    pub types: Vec<u32>,
    /// What is to be said.
    pub target: Target,
}

/// What a model is to say about a row.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// Nothing is known.
    #[default]
    None,
    /// The probability of each class, of which one holds. They need not sum to 1: a row with a larger sum has more weight.
    Shares(Vec<f32>),
    /// A number for each logit: several classes that may hold, or values.
    Numbers(Vec<f32>),
    /// A class for each token; negative ones do not count. For a decoder the next tokens.
    Tokens(Vec<i32>),
    /// The first and the last token of an answer.
    Span([i32; 2]),
    /// The tokens of an answer that a decoder says behind `start`.
    Answer {
        /// The first token that the decoder reads.
        start: u32,
        /// Its answer.
        ids: Vec<u32>,
    },
    /// That another text belongs to it, and how their vectors are made.
    Near {
        /// The tokens of the other text.
        ids: Vec<u32>,
        /// Which states become vectors.
        pooling: Pooling,
    },
}

impl Row {
    /// The tokens of the text that belongs to it.
    fn other(&self) -> &[u32] {
        if let Target::Near { ids, .. } = &self.target { ids } else { &[] }
    }

    /// Tokens of the text that is read, or of the longer of two.
    fn read(&self) -> usize {
        self.ids.len().max(self.other().len())
    }

    /// Tokens of the answer of a decoder behind an encoder.
    fn said(&self) -> usize {
        if let Target::Answer { ids, .. } = &self.target { ids.len() } else { 0 }
    }

    /// The first of the sizes that it fits.
    #[must_use]
    pub fn size_in(&self, sizes: &[RowSize]) -> Option<usize> {
        sizes.iter().position(|size| self.read() <= size.read && self.said() <= size.said)
    }
}

/// The size of a batch of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSize {
    /// Rows.
    pub rows: usize,
    /// Tokens of a text.
    pub read: usize,
    /// Tokens of an answer of a decoder behind an encoder, else 0.
    pub said: usize,
}

impl RowSize {
    /// The sizes of batches of `count` rows, at most six, the smallest first: both lengths rounded up, as by [`bucket`], and of these those joined
    /// that add the least padding.
    #[must_use]
    pub fn for_rows<'a>(rows: impl IntoIterator<Item = &'a Row>, count: usize) -> Vec<Self> {
        let mut groups: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let mut longest = (1, 0);
        for row in rows {
            let (read, said) = (row.read(), row.said());
            longest = (longest.0.max(read), longest.1.max(said));
            *groups.entry((rounded(read), rounded(said))).or_default() += 1;
        }
        // What a model reads may be no bucket.
        let mut groups: Vec<(usize, usize, usize)> = groups
            .into_iter()
            .map(|((read, said), number)| (read.min(longest.0), said.min(longest.1), number))
            .collect();
        let joined = |a: (usize, usize, usize), b: (usize, usize, usize)| (a.0.max(b.0), a.1.max(b.1), a.2 + b.2);
        let room = |group: (usize, usize, usize)| (group.0 + group.1) * group.2;
        while groups.len() > SIZES {
            let pairs = (0..groups.len()).flat_map(|a| (a + 1..groups.len()).map(move |b| (a, b)));
            let added =
                |&(a, b): &(usize, usize)| room(joined(groups[a], groups[b])) - room(groups[a]) - room(groups[b]);
            let Some((a, b)) = pairs.min_by_key(added) else { break };
            let other = groups.remove(b);
            groups[a] = joined(groups[a], other);
        }
        groups.sort_by_key(|group| (group.0 + group.1, group.0));
        groups.into_iter().map(|(read, said, _)| Self { rows: count, read, said }).collect()
    }
}

/// A length as batches have it; short ones, of which tables of words are full, in steps of 4.
pub(super) fn rounded(length: usize) -> usize {
    if length < 16 { length.next_multiple_of(4) } else { bucket(length) }
}

impl TaskObjective {
    /// A model with the task that it was made for, on batches of rows ([`RowBatches`]) as the first of `rows`.
    ///
    /// # Errors
    /// [`Error::Input`] if there are no rows, or they are not of that task.
    pub fn on_rows(model: Arc<dyn Model>, rows: &[Row], size: RowSize) -> Result<Self> {
        let first = rows.first().ok_or_else(|| Error::input("examples", "there are none"))?;
        let task = match &first.target {
            Target::Near { pooling, .. } => Contrastive::of(*pooling),
            _ => task_of(model.as_ref())?,
        };
        let RowSize { rows: count, read, said } = size;
        let texts = if matches!(first.target, Target::Near { .. }) { 2 * count } else { count };
        let mut shapes = vec![("input_ids".to_owned(), Shape::new([texts, read]))];
        let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), Shape::from(shape)));
        // A token of a plain decoder sees nothing behind it.
        let plain = model.encoder().is_none() && model.stacks().iter().all(|stack| stack.recursion.is_none());
        let masks = !plain || has_experts(model.as_ref());
        if masks {
            add(MASK, &[texts, read]);
        }
        if !first.types.is_empty() {
            add(TYPES, &[count, read]);
        }
        match &first.target {
            Target::None => return Err(Error::input("examples", "the first has no label to learn")),
            Target::Shares(shares) => add("labels", &[count, shares.len()]),
            Target::Numbers(numbers) => {
                add("labels", &[count, numbers.len()]);
                add(WEIGHTS, &[count]);
            }
            Target::Tokens(_) => add("labels", &[count, read]),
            Target::Span(_) => ["start_positions", "end_positions"].into_iter().for_each(|name| add(name, &[count])),
            Target::Near { .. } => {
                add("labels", &[count]);
                add(CANDIDATES, &[count, count]);
            }
            Target::Answer { .. } => {
                add("labels", &[count, said]);
                if masks {
                    add(&format!("decoder_{MASK}"), &[count, said]);
                }
            }
        }
        Ok(Self { model, task, shapes, label_smoothing: 0.0 })
    }
}

/// The inputs of some rows in a batch of a size. What is missing in a batch does not count.
fn feeds(rows: &[&Row], size: RowSize, masks: bool) -> Feeds {
    let RowSize { rows: count, read, said } = size;
    let mut feeds = Feeds::new();
    fn words<T: bytemuck::NoUninit>(name: &str, words: &[T]) -> (String, Vec<u8>) {
        (name.to_owned(), bytemuck::cast_slice(words).to_vec())
    }
    let each = |length: usize, of: &dyn Fn(&Row) -> Vec<u32>| -> Vec<u32> {
        let mut all = Vec::with_capacity(count * length);
        for number in 0..count {
            all.extend(rows.get(number).map(|row| of(row)).unwrap_or_default().into_iter().take(length));
            all.resize((number + 1) * length, 0);
        }
        all
    };
    // The other texts of pairs follow as further rows.
    let pairs = matches!(rows.first().map(|row| &row.target), Some(Target::Near { .. }));
    let both = |own: Vec<u32>, other: &dyn Fn() -> Vec<u32>| if pairs { [own, other()].concat() } else { own };
    let ids = both(each(read, &|row| row.ids.clone()), &|| each(read, &|row| row.other().to_vec()));
    feeds.push(words("input_ids", &ids));
    // A row without tokens would see nothing: its first counts as one.
    let mask = |length: usize, of: &dyn Fn(&Row) -> usize| {
        let mut all = each(length, &|row| vec![1; of(row)]);
        all.chunks_exact_mut(length.max(1)).for_each(|row| row[0] = 1);
        all
    };
    if masks {
        let all = both(mask(read, &|row| row.ids.len()), &|| mask(read, &|row| row.other().len()));
        feeds.push(words(MASK, &all));
    }
    if rows.iter().any(|row| !row.types.is_empty()) {
        feeds.push(words(TYPES, &each(read, &|row| row.types.clone())));
    }
    let numbers = |of: &dyn Fn(&Row) -> Vec<f32>| -> Vec<f32> {
        let width = rows.iter().map(|row| of(row).len()).max().unwrap_or(1);
        let mut all: Vec<f32> = rows.iter().flat_map(|row| of(row)).collect();
        all.resize(count * width, 0.0);
        all
    };
    let labels = |length: usize, of: &dyn Fn(&Row) -> Vec<i32>| -> Vec<i32> {
        let mut all = Vec::with_capacity(count * length);
        for number in 0..count {
            all.extend(rows.get(number).map(|row| of(row)).unwrap_or_default().into_iter().take(length));
            all.resize((number + 1) * length, IGNORED);
        }
        all
    };
    match rows.first().map(|row| &row.target) {
        None | Some(Target::None) => (),
        Some(Target::Shares(_)) => {
            // The loss is a mean over the batch; the missing rows are no part of it.
            let scale = count as f32 / rows.len().max(1) as f32;
            let of = |row: &Row| match &row.target {
                Target::Shares(shares) => shares.iter().map(|share| share * scale).collect(),
                _ => Vec::new(),
            };
            feeds.push(words("labels", &numbers(&of)));
        }
        Some(Target::Numbers(_)) => {
            let of = |row: &Row| if let Target::Numbers(numbers) = &row.target { numbers.clone() } else { Vec::new() };
            feeds.push(words("labels", &numbers(&of)));
            feeds.push(words(WEIGHTS, &numbers(&|_| vec![1.0 / rows.len() as f32])));
        }
        Some(Target::Tokens(_)) => {
            let of = |row: &Row| if let Target::Tokens(labels) = &row.target { labels.clone() } else { Vec::new() };
            feeds.push(words("labels", &labels(read, &of)));
        }
        Some(Target::Span(_)) => {
            for (at, name) in ["start_positions", "end_positions"].into_iter().enumerate() {
                let of = |row: &Row| if let Target::Span(span) = &row.target { vec![span[at]] } else { Vec::new() };
                feeds.push(words(name, &labels(1, &of)));
            }
        }
        Some(Target::Near { .. }) => {
            feeds.push(words("labels", &own_targets(rows, count)));
            feeds.push(words(CANDIDATES, &candidates(rows, count)));
        }
        Some(Target::Answer { .. }) => {
            let answer = |row: &Row| match &row.target {
                Target::Answer { start, ids } => (*start, ids.clone()),
                _ => (0, Vec::new()),
            };
            let front = |row: &Row| {
                let (start, ids) = answer(row);
                std::iter::once(start).chain(ids.iter().copied().take(ids.len().saturating_sub(1))).collect()
            };
            feeds.push(words("decoder_input_ids", &each(said, &front)));
            if masks {
                feeds.push(words(&format!("decoder_{MASK}"), &mask(said, &Row::said)));
            }
            let of = |row: &Row| answer(row).1.into_iter().map(|id| id as i32).collect();
            feeds.push(words("labels", &labels(said, &of)));
        }
    }
    feeds
}

/// Labels of a batch, by which its loss is weighted among others.
fn weight(rows: &[&Row]) -> f64 {
    let of = |row: &&Row| match &row.target {
        Target::Tokens(labels) => labels.iter().filter(|label| **label >= 0).count() as f64,
        Target::Answer { ids, .. } => ids.len() as f64,
        Target::None => 0.0,
        _ => 1.0,
    };
    rows.iter().map(of).sum()
}

/// Endless micro-batches of rows, for objectives of [`TaskObjective::on_rows`] of some sizes. A pass has each row once; of each 1,024 rows, in
/// an order that the seed and the pass decide, those of like length meet, and batches come in random order.
#[derive(Clone, Debug)]
pub struct RowBatches {
    rows: Arc<[Row]>,
    sizes: Vec<RowSize>,
    masks: bool,
    state: DataState,
    /// The batches of this pass: which size, and the rows.
    batches: Vec<(usize, Vec<u32>)>,
    /// Tokens and positions of the last batch.
    last: [u64; 2],
}

impl RowBatches {
    /// Batches of rows in these sizes, the smallest first, from a position of a run.
    ///
    /// # Errors
    /// [`Error::Input`] if there are no rows, one fits no size, or the position belongs to other examples.
    pub fn resume(rows: Arc<[Row]>, objective: &TaskObjective, sizes: Vec<RowSize>, state: DataState) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::input("examples", "there are none to train on"));
        }
        if let Some(at) = rows.iter().position(|row| row.size_in(&sizes).is_none()) {
            return Err(Error::input("examples", format!("number {at} is longer than all sizes of batches")));
        }
        let tokens = rows.iter().flat_map(|row| row.ids.iter().chain(row.other()).copied().chain([u32::MAX]));
        let text = fingerprint(tokens, rows.len());
        if ![0, text].contains(&state.text) {
            let message = "belongs to other examples or another tokenizer: resume with those of the run, or start a new run from its weights \
                           (--from)";
            return Err(Error::input("data position", message));
        }
        let masks = objective.shapes.iter().any(|(name, _)| name == MASK);
        let state = DataState { text, ..state };
        let mut source = Self { rows, sizes, masks, state, batches: Vec::new(), last: [0; 2] };
        source.lay_out();
        Ok(source)
    }

    fn lay_out(&mut self) {
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
        let mut random = random_of_pass(&self.state);
        shuffle(&mut random, &mut order);
        self.batches = batches(&self.rows, &self.sizes, &order);
        shuffle(&mut random, &mut self.batches);
    }
}

/// Batches of rows of like length: which size, and the rows.
fn batches(rows: &[Row], sizes: &[RowSize], order: &[u32]) -> Vec<(usize, Vec<u32>)> {
    let size = |row: u32| rows.get(row as usize)?.size_in(sizes);
    let length = |row: u32| rows.get(row as usize).map_or(0, Row::read);
    let counts: Vec<usize> = sizes.iter().map(|size| size.rows).collect();
    in_batches(order, &counts, &length, &size)
}

impl BatchSource for RowBatches {
    fn next_feeds(&mut self) -> Result<Feeds> {
        if self.state.cursor >= self.batches.len() as u64 {
            (self.state.epoch, self.state.cursor) = (self.state.epoch + 1, 0);
            self.lay_out();
        }
        let missing = || Error::input("examples", "a pass has no batch");
        let (size, numbers) = self.batches.get(self.state.cursor as usize).ok_or_else(missing)?;
        let (size, rows) = (self.sizes[*size], some(&self.rows, numbers));
        let tokens: usize = rows.iter().map(|row| row.ids.len() + row.said() + row.other().len()).sum();
        let texts = if rows.iter().any(|row| !row.other().is_empty()) { 2 } else { 1 };
        self.last = [tokens as u64, (size.rows * (texts * size.read + size.said)) as u64];
        let feeds = feeds(&rows, size, self.masks);
        self.state.cursor += 1;
        Ok(feeds)
    }

    fn position(&self) -> Value {
        let state = self.state;
        serde_json::json!({"seed": state.seed, "epoch": state.epoch, "cursor": state.cursor, "text": state.text})
    }

    fn tokens(&self) -> u64 {
        self.last[0]
    }

    fn positions(&self) -> u64 {
        self.last[1]
    }
}

fn some<'a>(rows: &'a [Row], numbers: &[u32]) -> Vec<&'a Row> {
    numbers.iter().filter_map(|&number| rows.get(number as usize)).collect()
}

/// Batches of held-out rows, each row once, to measure a task's loss on. Rows that fit no size are left out.
#[must_use]
pub fn rows_held_out(rows: &[Row], objective: &TaskObjective, sizes: &[RowSize]) -> Vec<HeldOut> {
    let masks = objective.shapes.iter().any(|(name, _)| name == MASK);
    let order: Vec<u32> = (0..rows.len() as u32).collect();
    let made = batches(rows, sizes, &order);
    let held_out = made.iter().filter_map(|(size, numbers)| {
        let rows = some(rows, numbers);
        Some(HeldOut { feeds: feeds(&rows, *sizes.get(*size)?, masks), weight: weight(&rows) })
    });
    held_out.collect()
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
