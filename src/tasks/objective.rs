//! Training on tasks, and batches of plain text for them.

use super::packed::check_documents;
use super::sequence::{halves, moved};
use super::{Task, TaskGraph, TaskMode, task_of};
use crate::error::{Error, Result};
use crate::graph::{Graph, Storage, Tensor};
use crate::models::{Decoder, Model};
use crate::shape::{Shape, TensorType};
use crate::train::{Batch, BatchSource, Batches, DataState, Feeds, HeldOut, LossAndStats, Objective};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// The share of tokens that a masked language model has to find.
const MASKED: f64 = 0.15;
/// The label of tokens that do not count.
pub(super) const IGNORED: i32 = -100;

/// A model trained for its task, on micro-batches of fixed shapes.
#[derive(Clone, Debug)]
pub struct TaskObjective {
    /// The model.
    pub model: Arc<dyn Model>,
    /// The task.
    pub task: &'static dyn Task,
    /// The inputs of a micro-batch.
    pub shapes: Vec<(String, Shape)>,
    /// Label smoothing in training: see [`crate::ops::CrossEntropyOptions`].
    pub label_smoothing: f32,
}

impl TaskObjective {
    /// A model with the task that it was made for, on plain text: rows of `length` tokens, of which an encoder-decoder reads the
    /// first half and continues it.
    ///
    /// # Errors
    /// [`Error::Input`] if the task needs more than text, or rows are too short.
    pub fn on_text(model: Arc<dyn Model>, rows: usize, length: usize) -> Result<Self> {
        match task_of(model.as_ref())?.name() {
            "sequence-to-sequence" | "language-model" | "masked-language-model" => Self::new(model, rows, length),
            other => Err(Error::input("model", format!("its task, {other}, can't be learnt from plain text"))),
        }
    }

    /// A model with the task that it was made for, on batches of `texts` texts of `length` tokens as [`Task::shapes`] has them.
    ///
    /// # Errors
    /// [`Error::Input`] if the length is too short for the task.
    pub fn new(model: Arc<dyn Model>, texts: usize, length: usize) -> Result<Self> {
        let task = task_of(model.as_ref())?;
        if task.name() == "sequence-to-sequence" && length < 2 {
            return Err(Error::input("context", "it must be 2 tokens or more: one to read and one to predict"));
        }
        let shapes = task.shapes(model.as_ref(), texts, length);
        Ok(Self { model, task, shapes, label_smoothing: 0.0 })
    }

    /// The task's results, by name, as outputs of a graph.
    ///
    /// # Errors
    /// Those of the ops.
    pub fn outputs(&self, g: &mut Graph) -> Result<()> {
        let outputs = self.graph(g, false)?.outputs;
        outputs.into_iter().try_for_each(|(name, tensor)| g.output(&name, tensor))
    }

    fn graph(&self, g: &mut Graph, training: bool) -> Result<TaskGraph> {
        let shapes = |name: &str| self.shapes.iter().find(|(known, _)| known == name).map(|(_, shape)| shape.clone());
        let mode = TaskMode { training, label_smoothing: if training { self.label_smoothing } else { 0.0 } };
        let made = self.task.graph(g, self.model.as_ref(), &shapes, mode)?;
        check_documents(g, self.task.packs(), &self.shapes)?;
        Ok(made)
    }

    /// Parameters that the loss does not depend on, such as a pooler's without a classifier.
    fn unreached(&self) -> Result<Vec<String>> {
        let mut g = Graph::new();
        self.model.declare(&mut g)?;
        let loss = self.loss(&mut g, true)?;
        let (names, wrt): (Vec<String>, Vec<Tensor>) = g.parameters().map(|(name, t)| (name.to_owned(), t)).unzip();
        let reached = g.differentiate(loss, &wrt)?;
        Ok(names.into_iter().zip(reached).filter(|(_, gradient)| gradient.is_none()).map(|(name, _)| name).collect())
    }

    fn measure(&self, g: &mut Graph, training: bool) -> Result<LossAndStats> {
        self.graph(g, training)?.loss_and_stats(g, training)
    }
}

impl Objective for TaskObjective {
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
        let mut parameters = self.model.parameters_in(storage)?;
        parameters.retain(|(name, _)| storage.trains(name));
        Ok(parameters)
    }

    fn frozen(&self) -> Vec<String> {
        let mut frozen = self.model.frozen();
        // An error of the graph is reported where the graph is used.
        frozen.extend(self.unreached().unwrap_or_default());
        frozen
    }

    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor> {
        self.measure(g, training)?.loss(g)
    }

    fn loss_and_stats(&self, g: &mut Graph) -> Result<LossAndStats> {
        self.measure(g, true)
    }
}

impl TextTask {
    /// The objective for plain text of a model whose tokenizer may have a mask token.
    ///
    /// # Errors
    /// [`Error::Input`] if its task needs more than text, or there is no such token where it is needed.
    pub fn of(model: &dyn Model, mask: Option<u32>) -> Result<Self> {
        let key = |key: &str| model.config()[key].as_u64().and_then(|id| u32::try_from(id).ok());
        match task_of(model)?.name() {
            "language-model" => Ok(Self::Next),
            "masked-language-model" => {
                let missing = || Error::input("tokenizer", "it has no token that stands for a mask ([MASK] or <mask>)");
                let mask = key("mask_token_id").or(mask).ok_or_else(missing)?;
                let all = model.dimensions().vocabulary as u32;
                // New models have the mask token after all tokens of text.
                Ok(Self::Masked { mask, below: if key("mask_token_id").is_some() { mask } else { all } })
            }
            "sequence-to-sequence" => {
                let start = model.decoder().and_then(Decoder::start_token);
                let missing = || Error::input("model", "it has no decoder_start_token_id, the first token of answers");
                Ok(Self::Continued { start: start.ok_or_else(missing)? })
            }
            other => Err(Error::input("model", format!("its task, {other}, can't be learnt from plain text"))),
        }
    }
}

/// How rows of text become the inputs of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextTask {
    /// Predict the next token.
    Next,
    /// Predict 15 % of the tokens, of which 8 in 10 are masked, 1 is replaced by a random token and 1 stays. Devlin et al.,
    /// arXiv 1810.04805.
    Masked {
        /// The mask token.
        mask: u32,
        /// The exclusive upper bound of random replacements.
        below: u32,
    },
    /// Predict the second half with a decoder; an encoder reads the first.
    Continued {
        /// The decoder's start token.
        start: u32,
    },
}

impl TextTask {
    /// The inputs of a batch of rows; the state fixes what is masked.
    fn feeds(self, batch: &Batch, state: &DataState) -> Feeds {
        let Batch { inputs: tokens, length, .. } = batch;
        let length = *length;
        let ids = |name: &str, ids: Vec<u32>| (name.to_owned(), bytemuck::cast_slice(&ids).to_vec());
        let labels = |labels: Vec<i32>| ("labels".to_owned(), bytemuck::cast_slice(&labels).to_vec());
        let rows = || tokens.chunks_exact(length.max(1));
        match self {
            Self::Next => vec![ids("input_ids", tokens.clone()), labels(batch.labels.clone())],
            Self::Masked { mask, below } => {
                let (shown, wanted) = masked(tokens, mask, below, &mut random_of(state));
                vec![ids("input_ids", shown), labels(wanted)]
            }
            Self::Continued { start } => {
                let (read, said) = halves(length);
                let front = rows().flat_map(|row| row[..read].to_vec()).collect();
                let back: Vec<i32> = rows().flat_map(|row| row[read..].iter().map(|id| *id as i32)).collect();
                let shifted: Vec<u32> = moved(&back, said, start as i32, 0).into_iter().map(|id| id as u32).collect();
                vec![ids("input_ids", front), labels(back), ids("decoder_input_ids", shifted)]
            }
        }
    }
}

/// The random numbers of a position in the data: a resumed run masks the same tokens.
pub(super) fn random_of(state: &DataState) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(state.seed);
    random.set_stream((state.epoch << 40) ^ state.cursor);
    random
}

/// Tokens with masks, as [`TextTask::Masked`] says, and what is to be found behind them.
pub(super) fn masked(tokens: &[u32], mask: u32, below: u32, random: &mut ChaCha8Rng) -> (Vec<u32>, Vec<i32>) {
    let (mut shown, mut wanted) = (tokens.to_vec(), vec![IGNORED; tokens.len()]);
    for (shown, wanted) in shown.iter_mut().zip(&mut wanted) {
        if !random.random_bool(MASKED) {
            continue;
        }
        *wanted = *shown as i32;
        match random.random_range(0..10) {
            0 => (),
            1 => *shown = random.random_range(0..below.max(1)),
            _ => *shown = mask,
        }
    }
    (shown, wanted)
}

/// Endless micro-batches of text for a task.
#[derive(Clone, Debug)]
pub struct TextBatches {
    /// The rows of text.
    pub rows: Batches,
    /// The objective.
    pub task: TextTask,
}

impl BatchSource for TextBatches {
    fn next_feeds(&mut self) -> Result<Feeds> {
        let state = self.rows.state();
        Ok(self.task.feeds(&self.rows.next_batch(), &state))
    }

    fn position(&self) -> serde_json::Value {
        self.rows.position()
    }

    fn tokens(&self) -> u64 {
        BatchSource::tokens(&self.rows)
    }
}

/// Batches of held-out text ([`crate::train::in_order`]) to measure a task's loss on. The last, incomplete batch serves next-token
/// prediction only.
#[must_use]
pub fn held_out_for(task: TextTask, batches: &[Batch]) -> Vec<HeldOut> {
    // The last token of a text has no next one.
    let whole = |batch: &&Batch| task == TextTask::Next || batch.counted() + 1 >= batch.rows * batch.length;
    let held_out = |(number, batch): (usize, &Batch)| {
        let state = DataState { seed: 0, epoch: 0, cursor: number as u64, text: 0 };
        let feeds = task.feeds(batch, &state);
        let labels = feeds.iter().filter(|(name, _)| name == "labels").flat_map(|(_, bytes)| bytes.chunks_exact(4));
        let weight = labels.filter(|label| label[3] < 0x80).count() as f64;
        HeldOut { feeds, weight }
    };
    batches.iter().filter(whole).enumerate().map(held_out).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(feeds: &Feeds, name: &str) -> Vec<i32> {
        let bytes = &feeds.iter().find(|(known, _)| known == name).unwrap().1;
        bytemuck::pod_collect_to_vec(bytes)
    }

    #[test]
    fn masks_are_those_of_the_place_in_the_data_and_stand_for_what_is_wanted() {
        let tokens: Vec<u32> = (0..4000).map(|i| i % 50).collect();
        let task = TextTask::Masked { mask: 50, below: 50 };
        let state = |cursor| DataState { seed: 3, epoch: 1, cursor, text: 0 };
        let batch = Batch { rows: 100, length: 40, inputs: tokens.clone(), labels: Vec::new() };
        let feeds = task.feeds(&batch, &state(7));
        assert_eq!(feeds, task.feeds(&batch, &state(7)));
        assert_ne!(feeds, task.feeds(&batch, &state(8)));
        let (shown, wanted) = (words(&feeds, "input_ids"), words(&feeds, "labels"));
        let chosen = wanted.iter().filter(|label| **label >= 0).count();
        let masked = shown.iter().filter(|id| **id == 50).count();
        assert!(
            (500..700).contains(&chosen) && (chosen * 7 / 10..chosen * 9 / 10).contains(&masked),
            "{chosen} {masked}"
        );
        for ((shown, wanted), token) in shown.iter().zip(&wanted).zip(&tokens) {
            assert!(*wanted == IGNORED && *shown == *token as i32 || *wanted == *token as i32);
        }
    }

    #[test]
    fn a_row_is_read_to_its_half_and_continued() {
        let state = DataState { seed: 0, epoch: 0, cursor: 0, text: 0 };
        let batch = Batch { rows: 2, length: 5, inputs: vec![1, 2, 3, 4, 5, 6, 7, 8, 0, 1], labels: Vec::new() };
        let feeds = TextTask::Continued { start: 9 }.feeds(&batch, &state);
        assert_eq!(words(&feeds, "input_ids"), [1, 2, 6, 7]);
        assert_eq!(words(&feeds, "labels"), [3, 4, 5, 8, 0, 1]);
        assert_eq!(words(&feeds, "decoder_input_ids"), [9, 3, 4, 9, 8, 0]);
    }
}
