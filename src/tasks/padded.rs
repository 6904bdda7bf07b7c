//! Texts of unequal lengths where each has a row of its own: batches of texts of like length.

use super::TaskObjective;
use super::objective::TextTask;
use super::packed::{MASK, Packer, checked_fingerprint, has_experts};
use super::sequence::halves;
use crate::error::{Error, Result};
use crate::models::Model;
use crate::shape::Shape;
use crate::train::{BatchSource, DataState, Feeds, HeldOut, bucket, random_of_pass, shuffle};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Texts that are sorted by length before they are put in batches: of all of a pass the same would meet each time.
const SORTED: usize = 1024;

/// The lengths of batches for texts of these lengths, ascending: at most `most` of those that [`bucket`] gives, the last no longer than
/// `longest`, chosen such that few positions are padding.
#[must_use]
pub fn batch_lengths(lengths: &[usize], longest: usize, most: usize) -> Vec<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for length in lengths.iter().filter(|length| **length <= longest) {
        *counts.entry(bucket(*length).min(longest)).or_default() += 1;
    }
    let mut found: Vec<(usize, usize)> = counts.into_iter().collect();
    while found.len() > most.max(1) {
        // The texts of one length move to the next where that adds the least padding.
        let added = |at: usize| (found[at + 1].0 - found[at].0) * found[at].1;
        let Some(least) = (0..found.len() - 1).min_by_key(|&at| added(at)) else { break };
        found[least + 1].1 += found[least].1;
        found.remove(least);
    }
    found.into_iter().map(|(length, _)| length).collect()
}

impl TaskObjective {
    /// A model with the task that it was made for, on [`PaddedTexts`] of `length` tokens, one in a row. Where the model sees padding,
    /// there are masks.
    ///
    /// # Errors
    /// As [`TaskObjective::on_text`].
    pub fn on_padded_text(model: Arc<dyn Model>, rows: usize, length: usize) -> Result<Self> {
        let mut objective = Self::on_text(model.clone(), rows, length)?;
        let continued = objective.task.name() == "sequence-to-sequence";
        let (read, said) = if continued { halves(length) } else { (length, 0) };
        // A token of a plain decoder sees nothing behind it.
        let plain = model.encoder().is_none() && model.stacks().iter().all(|stack| stack.recursion.is_none());
        for (side, length) in [("", read), ("decoder_", said)] {
            if length > 0 && (!plain || has_experts(model.as_ref())) {
                objective.shapes.push((format!("{side}{MASK}"), Shape::new([rows, length])));
            }
        }
        Ok(objective)
    }
}

/// Endless micro-batches of texts of like length, for objectives of [`TaskObjective::on_padded_text`] of some lengths: a batch has the shortest
/// of them that its texts fit, and a trainer a program for each ([`crate::train::Trainer::add_size`]). A pass has each text once; of each
/// 1,024 texts, in an order that the seed and the pass decide, those of like length meet, and batches come in random order. Texts longer
/// than all objectives, or of one token, are left out.
#[derive(Clone, Debug)]
pub struct PaddedTexts {
    /// By length, the shortest first.
    packers: Vec<Packer>,
    state: DataState,
    /// The batches of this pass: which packer, and the texts.
    batches: Vec<(usize, Vec<u32>)>,
    /// Tokens and positions of the last batch.
    last: [u64; 2],
}

impl PaddedTexts {
    /// Batches for objectives, from the beginning.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no objective, one is not of padded texts, or no text fits one; those of the objectives.
    pub fn new(texts: Arc<[Vec<u32>]>, objectives: &[TaskObjective], task: TextTask, seed: u64) -> Result<Self> {
        Self::resume(texts, objectives, task, DataState { seed, epoch: 0, cursor: 0, text: 0 })
    }

    /// As [`PaddedTexts::new`], from the position of a run. Texts and objectives must be those of that run.
    ///
    /// # Errors
    /// As [`PaddedTexts::new`]; [`Error::Input`] if the position belongs to other texts or lengths.
    pub fn resume(
        texts: Arc<[Vec<u32>]>,
        objectives: &[TaskObjective],
        task: TextTask,
        state: DataState,
    ) -> Result<Self> {
        let packers: Result<Vec<Packer>> =
            objectives.iter().map(|objective| Packer::new(texts.clone(), objective, task)).collect();
        let mut packers = packers?;
        packers.sort_by_key(Packer::length);
        let text = checked_fingerprint(&texts, packers.iter().map(Packer::length), &state)?;
        let mut padded = Self { packers, state: DataState { text, ..state }, batches: Vec::new(), last: [0; 2] };
        padded.lay_out();
        if padded.batches.is_empty() {
            return Err(Error::input("texts", "none is of two tokens or more and fits a row: give a longer context"));
        }
        Ok(padded)
    }

    /// Lays out the pass of the state.
    fn lay_out(&mut self) {
        let Some(longest) = self.packers.last() else { return };
        let (rooms, _) = longest.room();
        let mut texts: Vec<u32> = (0..rooms.len() as u32).collect();
        let mut random = random_of_pass(&self.state);
        shuffle(&mut random, &mut texts);
        self.batches = batches(&self.packers, &rooms, &texts);
        shuffle(&mut random, &mut self.batches);
    }
}

/// Batches of texts of like length: which packer, and the texts.
fn batches(packers: &[Packer], rooms: &[usize], texts: &[u32]) -> Vec<(usize, Vec<u32>)> {
    let counts: Vec<usize> = packers.iter().map(Packer::rows).collect();
    let most: Vec<usize> = packers.iter().map(|packer| packer.room().1).collect();
    let room = |text: u32| rooms[text as usize];
    in_batches(texts, &counts, &room, &|text| most.iter().position(|most| room(text) <= *most))
}

/// Batches of texts of like `length`: which of the sizes, of so many texts each, and the texts; those without a size are left out.
pub(super) fn in_batches(
    texts: &[u32],
    counts: &[usize],
    length: &dyn Fn(u32) -> usize,
    size: &dyn Fn(u32) -> Option<usize>,
) -> Vec<(usize, Vec<u32>)> {
    let (mut batches, mut open) = (Vec::new(), vec![Vec::new(); counts.len()]);
    for chunk in texts.chunks(SORTED) {
        let mut chunk = chunk.to_vec();
        chunk.sort_by_key(|&text| length(text));
        for text in chunk {
            let Some(size) = size(text) else { continue };
            open[size].push(text);
            if open[size].len() == counts[size] {
                batches.push((size, std::mem::take(&mut open[size])));
            }
        }
    }
    batches.extend(open.into_iter().enumerate().filter(|(_, texts)| !texts.is_empty()));
    batches
}

fn rows(texts: &[u32]) -> Vec<Vec<u32>> {
    texts.iter().map(|&text| vec![text]).collect()
}

impl BatchSource for PaddedTexts {
    fn next_feeds(&mut self) -> Result<Feeds> {
        let missing = || Error::input("texts", "a pass has no batch");
        if self.state.cursor >= self.batches.len() as u64 {
            (self.state.epoch, self.state.cursor) = (self.state.epoch + 1, 0);
            self.lay_out();
        }
        let (size, texts) = self.batches.get(self.state.cursor as usize).ok_or_else(missing)?;
        let (batch, packer) = (rows(texts), &self.packers[*size]);
        self.last = packer.size(&batch);
        let feeds = packer.feeds(&batch, &self.state);
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

/// Batches of held-out texts of like length, each text once, to measure a task's loss on.
///
/// # Errors
/// As [`PaddedTexts::new`], but texts may be missing.
pub fn padded_held_out(texts: Arc<[Vec<u32>]>, objectives: &[TaskObjective], task: TextTask) -> Result<Vec<HeldOut>> {
    let packers: Result<Vec<Packer>> =
        objectives.iter().map(|objective| Packer::new(texts.clone(), objective, task)).collect();
    let mut packers = packers?;
    packers.sort_by_key(Packer::length);
    let Some(longest) = packers.last() else { return Ok(Vec::new()) };
    let (rooms, _) = longest.room();
    let all: Vec<u32> = (0..rooms.len() as u32).collect();
    let made = batches(&packers, &rooms, &all);
    let held_out = made.iter().enumerate().map(|(number, (size, texts))| packers[*size].held_out(number, &rows(texts)));
    Ok(held_out.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Config;
    use crate::models;

    #[test]
    fn few_lengths_are_chosen_with_little_padding() {
        assert_eq!(batch_lengths(&[3, 5, 17, 30, 31, 61, 64, 99], 64, 9), [16, 20, 32, 64]);
        assert_eq!(batch_lengths(&[3, 5, 17, 30, 31, 61, 64, 99], 64, 3), [20, 32, 64]);
        assert_eq!(batch_lengths(&[3, 5, 17, 30], 24, 1), [20]);
        assert!(batch_lengths(&[99], 64, 3).is_empty());
    }

    #[test]
    fn texts_of_like_length_share_a_batch_and_a_resumed_run_has_the_same() {
        let config =
            serde_json::json!({"model_type": "gpt2", "vocab_size": 99, "n_embd": 4, "n_head": 1, "n_layer": 1});
        let model: Arc<dyn Model> = models::model(&Config::new("test", config).unwrap()).unwrap().into();
        let texts: Arc<[Vec<u32>]> = (0..300_u32).map(|i| (0..2 + i * 7 % 61).collect()).collect();
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let lengths = batch_lengths(&lengths, 64, 6);
        let objectives: Vec<TaskObjective> = lengths
            .iter()
            .map(|&length| TaskObjective::on_padded_text(model.clone(), 256 / length, length).unwrap())
            .collect();
        let mut run = PaddedTexts::new(texts.clone(), &objectives, TextTask::Next, 5).unwrap();
        let (batches, all) = (run.batches.len(), texts.iter().map(|text| text.len() as u64).sum::<u64>());
        let (mut tokens, mut positions) = (0, 0);
        for _ in 0..batches {
            let feeds = run.next_feeds().unwrap();
            assert_eq!(feeds.len(), 2);
            (tokens, positions) = (tokens + run.tokens(), positions + run.positions());
        }
        assert_eq!(tokens, all);
        assert!(positions * 4 < tokens * 5, "{tokens} tokens in {positions} positions");
        run.next_feeds().unwrap();
        let state: DataState = serde_json::from_value(run.position()).unwrap();
        assert_eq!((state.epoch, state.cursor), (1, 1));
        let mut resumed = PaddedTexts::resume(texts.clone(), &objectives, TextTask::Next, state).unwrap();
        assert!((0..50).all(|_| run.next_feeds().unwrap() == resumed.next_feeds().unwrap()));
        let weight: f64 =
            padded_held_out(texts.clone(), &objectives, TextTask::Next).unwrap().iter().map(|x| x.weight).sum();
        assert!((weight - (all - 300) as f64).abs() < 0.5, "a text of n tokens has n - 1 labels");
        let other = PaddedTexts::resume(texts, &objectives[1..], TextTask::Next, state).unwrap_err().to_string();
        assert!(other.contains("belongs to other texts"), "{other}");
    }
}
