//! Texts of unequal lengths, packed: several in a row, each for itself.

use super::objective::{IGNORED, TextTask, masked, random_of};
use super::sequence::halves;
use super::{Shapes, TaskObjective, input};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::{Model, TokenInputs};
use crate::nn::{Documents, FeedForward};
use crate::shape::Shape;
use crate::train::{BatchSource, DataState, Feeds, HeldOut, Objective, PackedRows, fingerprint, pack};
use serde_json::Value;
use std::sync::Arc;

/// The first token of each token's text and one past the last, `(B, T, 2)` u32.
const DOCUMENTS: &str = "documents";
/// The position of each token in its text, `(B, T)` u32.
const POSITIONS: &str = "position_ids";
/// The encoder's tokens of the text of each of the decoder's tokens, `(B, T, 2)` u32.
const CROSS: &str = "cross_documents";
/// 0 on padding, for experts.
pub(super) const MASK: &str = "attention_mask";

/// Adds what says which tokens of a row are one text, if there is such an input; names begin with `side`.
pub(super) fn with_documents(
    g: &mut Graph,
    model: &dyn Model,
    shapes: Shapes<'_>,
    side: &str,
    inputs: TokenInputs,
) -> Result<TokenInputs> {
    let name = format!("{side}{DOCUMENTS}");
    let Some(shape) = shapes(&name) else { return Ok(inputs) };
    let ranges = g.input(&name, shape, DType::U32)?;
    let positions = input(g, shapes, &format!("{side}{POSITIONS}"), DType::U32)?;
    let context = match shapes(CROSS).filter(|_| !side.is_empty()) {
        Some(shape) => Some(g.input(CROSS, shape, DType::U32)?),
        None => None,
    };
    let longest = g.shape(inputs.ids).last().min(model.dimensions().max_position);
    Ok(inputs.with_documents(Documents { ranges, context }, positions, longest))
}

/// Refuses a graph in which something does not keep the texts of a row apart, though the inputs of these names are there to say them.
pub(super) fn check_documents(g: &Graph, packs: bool, names: &[(String, Shape)]) -> Result<()> {
    let mut names = names.iter().filter(|(name, _)| name.ends_with(DOCUMENTS)).peekable();
    let read = |name: &str| g.find(name).is_some_and(|it| g.nodes().iter().any(|node| node.inputs.contains(&it)));
    if names.peek().is_none() || packs && names.all(|(name, _)| read(name)) {
        return Ok(());
    }
    let what = "this model with its task can't read several texts in a row: give each a row of its own";
    Err(Error::input("packed texts", what))
}

impl TaskObjective {
    /// A model with the task that it was made for, on [`PackedTexts`]: rows of `length` tokens with several texts in each. An encoder reads
    /// the first half of each text, and a decoder behind it says the other.
    ///
    /// The loss is the mean over the same labels as of the texts alone; none is predicted from another text. Experts see the same tokens
    /// and no padding: capacities and the losses of routers are those of the batch.
    ///
    /// # Errors
    /// As [`TaskObjective::on_text`] and [`TaskObjective::on_packed`].
    pub fn on_packed_text(model: Arc<dyn Model>, rows: usize, length: usize) -> Result<Self> {
        Self::on_text(model.clone(), rows, length)?;
        Self::on_packed(model, rows, length)
    }

    /// A model with the task that it was made for, on rows of `length` tokens with several texts in each, whose labels are those of each
    /// token ([`Task::packs`](super::Task::packs) has the inputs): also classes of tokens and tokens that were replaced. What belongs into
    /// a row, [`PackedRows`] or [`pack`] says.
    ///
    /// # Errors
    /// As [`TaskObjective::new`]. What can't keep the texts of a row apart, as recursions and tasks with an answer for each row, is refused
    /// where the graph is made.
    pub fn on_packed(model: Arc<dyn Model>, rows: usize, length: usize) -> Result<Self> {
        let mut objective = Self::new(model.clone(), rows, length)?;
        let continued = objective.task.name() == "sequence-to-sequence";
        let (read, said) = if continued { halves(length) } else { (length, 0) };
        let masks = has_experts(model.as_ref());
        let mut add = |name: String, shape: &[usize]| objective.shapes.push((name, Shape::from(shape)));
        for (side, length) in [("", read), ("decoder_", said)].into_iter().filter(|(_, length)| *length > 0) {
            add(format!("{side}{DOCUMENTS}"), &[rows, length, 2]);
            add(format!("{side}{POSITIONS}"), &[rows, length]);
            if masks {
                add(format!("{side}{MASK}"), &[rows, length]);
            }
        }
        if continued {
            add(CROSS.into(), &[rows, said, 2]);
        }
        Ok(objective)
    }
}

pub(super) fn has_experts(model: &dyn Model) -> bool {
    let plain = |feed: &FeedForward| matches!(feed, FeedForward::Plain { .. } | FeedForward::Gated { .. });
    model.stacks().iter().flat_map(|stack| &stack.blocks).any(|block| !plain(&block.feed_forward))
}

/// The tokens of texts side by side in rows of one length.
#[derive(Default)]
struct Side {
    ids: Vec<u32>,
    positions: Vec<u32>,
    ranges: Vec<u32>,
    mask: Vec<u32>,
}

impl Side {
    /// Adds a text to the row of `length` that was begun at token `row`, and gives its range in that row.
    fn push(&mut self, row: usize, text: &[u32]) -> [u32; 2] {
        let first = (self.ids.len() - row) as u32;
        let range = [first, first + text.len() as u32];
        self.ids.extend(text);
        self.positions.extend(0..text.len() as u32);
        self.ranges.extend(text.iter().flat_map(|_| range));
        self.mask.extend(text.iter().map(|_| 1));
        range
    }

    /// Fills up a row. Padding sees nothing.
    fn fill(&mut self, row: usize, length: usize) {
        let end = (self.ids.len() - row) as u32;
        for _ in self.ids.len() - row..length {
            self.ids.push(0);
            self.positions.push(0);
            self.ranges.extend([end, end]);
            self.mask.push(0);
        }
    }

    fn feeds(self, name: &str, side: &str) -> Feeds {
        let words = |name: String, words: Vec<u32>| (name, bytemuck::cast_slice(&words).to_vec());
        vec![
            words(name.into(), self.ids),
            words(format!("{side}{POSITIONS}"), self.positions),
            words(format!("{side}{DOCUMENTS}"), self.ranges),
            words(format!("{side}{MASK}"), self.mask),
        ]
    }
}

/// How texts become batches.
#[derive(Clone, Debug)]
pub(super) struct Packer {
    texts: Arc<[Vec<u32>]>,
    task: TextTask,
    rows: usize,
    /// Tokens of a row, and those of a decoder behind an encoder.
    read: usize,
    said: usize,
    /// The inputs that the model reads: one with biases by distance reads no positions.
    inputs: Vec<String>,
}

impl Packer {
    pub(super) fn new(texts: Arc<[Vec<u32>]>, objective: &TaskObjective, task: TextTask) -> Result<Self> {
        let shape = |name: &str| match objective.shapes.iter().find(|(known, _)| known == name) {
            Some((_, shape)) => shape.expect::<2>(name),
            None => Err(Error::input(name, "is missing: the objective must be one of packed texts")),
        };
        let [rows, read] = shape("input_ids")?;
        let continued = matches!(task, TextTask::Continued { .. });
        let said = if continued { shape("labels")?[1] } else { 0 };
        if rows == 0 || read + said < 2 {
            let message = format!("{rows} rows of {} tokens: give 1 row or more of 2 tokens or more", read + said);
            return Err(Error::input("batch", message));
        }
        let mut g = Graph::new();
        objective.loss(&mut g, true)?;
        let read_by_a_node = |tensor: Tensor| g.nodes().iter().any(|node| node.inputs.contains(&tensor));
        let inputs = g.inputs().filter(|(_, tensor)| read_by_a_node(*tensor)).map(|(name, _)| name.to_owned());
        Ok(Self { texts, task, rows, read, said, inputs: inputs.collect() })
    }

    /// Rows of a batch.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Tokens of a row, on both sides.
    pub(super) fn length(&self) -> usize {
        self.read + self.said
    }

    /// The room that each text takes up, and that a row has. A text of one token predicts none, and has no place.
    pub(super) fn room(&self) -> (Vec<usize>, usize) {
        let half = self.said > 0;
        let room = |text: &Vec<u32>| match text.len() {
            0 | 1 => usize::MAX,
            length if half => length.div_ceil(2),
            length => length,
        };
        (self.texts.iter().map(room).collect(), if half { self.read.min(self.said) } else { self.read })
    }

    /// Tokens of the texts of a batch, and its positions.
    pub(super) fn size(&self, batch: &[Vec<u32>]) -> [u64; 2] {
        let tokens: usize = batch.iter().flatten().map(|&text| self.texts[text as usize].len()).sum();
        [tokens as u64, (self.rows * (self.read + self.said)) as u64]
    }

    /// The inputs of the texts of some rows; the state fixes what is masked.
    pub(super) fn feeds(&self, batch: &[Vec<u32>], state: &DataState) -> Feeds {
        let Self { read, said, .. } = *self;
        let (mut front, mut back, mut labels, mut cross) = (Side::default(), Side::default(), Vec::new(), Vec::new());
        let mut random = random_of(state);
        for number in 0..self.rows {
            let [front_row, back_row] = [number * read, number * said];
            for text in batch.get(number).into_iter().flatten().filter_map(|&text| self.texts.get(text as usize)) {
                match self.task {
                    TextTask::Next => {
                        front.push(front_row, text);
                        labels.extend(text.iter().skip(1).map(|&id| id as i32).chain([IGNORED]));
                    }
                    TextTask::Masked { mask, below } => {
                        let (shown, wanted) = masked(text, mask, below, &mut random);
                        front.push(front_row, &shown);
                        labels.extend(wanted);
                    }
                    TextTask::Continued { start } => {
                        let (first, second) = text.split_at(text.len() / 2);
                        let range = front.push(front_row, first);
                        let moved: Vec<u32> =
                            std::iter::once(start).chain(second[..second.len() - 1].iter().copied()).collect();
                        back.push(back_row, &moved);
                        labels.extend(second.iter().map(|&id| id as i32));
                        cross.extend(second.iter().flat_map(|_| range));
                    }
                }
            }
            front.fill(front_row, read);
            back.fill(back_row, said);
            labels.resize((number + 1) * if said > 0 { said } else { read }, IGNORED);
            let end = front.ranges.last().copied().unwrap_or(0);
            cross.resize((number + 1) * said * 2, end);
        }
        let mut feeds = front.feeds("input_ids", "");
        feeds.push(("labels".into(), bytemuck::cast_slice(&labels).to_vec()));
        feeds.extend(back.feeds("decoder_input_ids", "decoder_"));
        feeds.push((CROSS.into(), bytemuck::cast_slice(&cross).to_vec()));
        feeds.retain(|(name, _)| self.inputs.contains(name));
        feeds
    }

    /// A batch of held-out texts.
    pub(super) fn held_out(&self, number: usize, batch: &[Vec<u32>]) -> HeldOut {
        let state = DataState { seed: 0, epoch: 0, cursor: number as u64, text: 0 };
        let feeds = self.feeds(batch, &state);
        let labels = feeds.iter().filter(|(name, _)| name == "labels").flat_map(|(_, bytes)| bytes.chunks_exact(4));
        let weight = labels.filter(|label| label[3] < 0x80).count() as f64;
        HeldOut { feeds, weight }
    }
}

/// The fingerprint of texts and of the lengths of rows, if the position of a run is one in them.
pub(super) fn checked_fingerprint(
    texts: &[Vec<u32>],
    lengths: impl Iterator<Item = usize>,
    state: &DataState,
) -> Result<u64> {
    let tokens = texts.iter().flat_map(|text| text.iter().copied().chain([u32::MAX]));
    let text = fingerprint(tokens.chain(lengths.map(|length| length as u32)), texts.len());
    if [0, text].contains(&state.text) {
        return Ok(text);
    }
    let message = "belongs to other texts, another tokenizer or context length: resume with those of the run, or start a new run from its \
                   weights (--from)";
    Err(Error::input("data position", message))
}

/// Endless micro-batches of whole texts for [`TaskObjective::on_packed_text`]. Texts longer than a row, or of one token, are left out.
#[derive(Clone, Debug)]
pub struct PackedTexts {
    packer: Packer,
    rows: PackedRows,
    /// Tokens and positions of the last batch.
    last: [u64; 2],
}

impl PackedTexts {
    /// Batches for an objective of [`TaskObjective::on_packed_text`], from the beginning.
    ///
    /// # Errors
    /// [`Error::Input`] if the objective is another, the rows are too short, or no text fits one; those of the objective.
    pub fn new(texts: Arc<[Vec<u32>]>, objective: &TaskObjective, task: TextTask, seed: u64) -> Result<Self> {
        Self::resume(texts, objective, task, DataState { seed, epoch: 0, cursor: 0, text: 0 })
    }

    /// As [`PackedTexts::new`], from the position of a run. Texts and length must be those of that run.
    ///
    /// # Errors
    /// As [`PackedTexts::new`]; [`Error::Input`] if the position belongs to other texts or rows.
    pub fn resume(texts: Arc<[Vec<u32>]>, objective: &TaskObjective, task: TextTask, state: DataState) -> Result<Self> {
        let packer = Packer::new(texts, objective, task)?;
        let (room, capacity) = packer.room();
        let text = checked_fingerprint(&packer.texts, [packer.length()].into_iter(), &state)?;
        let rows = PackedRows::resume(room, capacity, DataState { text, ..state })?;
        Ok(Self { packer, rows, last: [0; 2] })
    }
}

impl BatchSource for PackedTexts {
    fn next_feeds(&mut self) -> Result<Feeds> {
        let state = self.rows.state();
        let batch: Vec<Vec<u32>> = (0..self.packer.rows).map(|_| self.rows.next_row()).collect();
        self.last = self.packer.size(&batch);
        Ok(self.packer.feeds(&batch, &state))
    }

    fn position(&self) -> Value {
        let state = self.rows.state();
        serde_json::json!({"seed": state.seed, "epoch": state.epoch, "cursor": state.cursor, "text": state.text})
    }

    fn tokens(&self) -> u64 {
        self.last[0]
    }

    fn positions(&self) -> u64 {
        self.last[1]
    }
}

/// Batches of packed held-out texts, each text once, to measure a task's loss on.
///
/// # Errors
/// As [`PackedTexts::new`], but texts may be missing.
pub fn packed_held_out(texts: Arc<[Vec<u32>]>, objective: &TaskObjective, task: TextTask) -> Result<Vec<HeldOut>> {
    let packer = Packer::new(texts, objective, task)?;
    let (room, capacity) = packer.room();
    let all: Vec<u32> = (0..room.len() as u32).collect();
    let packed = pack(&room, &all, capacity);
    let batches = packed.chunks(packer.rows).enumerate();
    Ok(batches.map(|(number, batch)| packer.held_out(number, batch)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Config;
    use crate::models;

    fn words(feeds: &Feeds, name: &str) -> Vec<i32> {
        let bytes = &feeds.iter().find(|(known, _)| known == name).unwrap().1;
        bytemuck::pod_collect_to_vec(bytes)
    }

    fn packer(task: TextTask, [read, said]: [usize; 2]) -> Packer {
        let texts: Vec<Vec<u32>> = vec![vec![1, 2, 3], vec![4, 5], vec![6, 7, 8, 9, 10]];
        let sides =
            ["", "decoder_"].map(|side| ["input_ids", POSITIONS, DOCUMENTS, MASK].map(|name| format!("{side}{name}")));
        let inputs = sides.concat().into_iter().chain(["labels", CROSS].map(str::to_owned)).collect();
        Packer { texts: texts.into(), task, rows: 2, read, said, inputs }
    }

    #[test]
    fn labels_and_positions_are_those_of_each_text() {
        let state = DataState { seed: 0, epoch: 0, cursor: 0, text: 0 };
        let feeds = packer(TextTask::Next, [6, 0]).feeds(&[vec![0, 1], vec![2]], &state);
        assert_eq!(words(&feeds, "input_ids"), [1, 2, 3, 4, 5, 0, 6, 7, 8, 9, 10, 0]);
        assert_eq!(words(&feeds, "labels"), [2, 3, -100, 5, -100, -100, 7, 8, 9, 10, -100, -100]);
        assert_eq!(words(&feeds, "position_ids"), [0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 4, 0]);
        assert_eq!(words(&feeds, "documents")[..12], [0, 3, 0, 3, 0, 3, 3, 5, 3, 5, 5, 5]);
        assert_eq!(words(&feeds, "attention_mask"), [1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0]);
        let feeds = packer(TextTask::Continued { start: 99 }, [5, 5]).feeds(&[vec![0, 2]], &state);
        assert_eq!(words(&feeds, "input_ids")[..5], [1, 6, 7, 0, 0]);
        assert_eq!(words(&feeds, "labels")[..5], [2, 3, 8, 9, 10]);
        assert_eq!(words(&feeds, "decoder_input_ids")[..5], [99, 2, 99, 8, 9]);
        assert_eq!(words(&feeds, "decoder_documents")[..10], [0, 2, 0, 2, 2, 5, 2, 5, 2, 5]);
        assert_eq!(words(&feeds, "cross_documents")[..10], [0, 1, 0, 1, 1, 3, 1, 3, 1, 3]);
    }

    #[test]
    fn a_resumed_run_has_the_same_batches() {
        let config = serde_json::json!({"model_type": "bert", "architectures": ["BertForMaskedLM"], "vocab_size": 9, "hidden_size": 4,
            "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 4});
        let model: Arc<dyn Model> = models::model(&Config::new("test", config).unwrap()).unwrap().into();
        let objective = |length| TaskObjective::on_packed_text(model.clone(), 2, length).unwrap();
        let texts: Arc<[Vec<u32>]> = (0..50_u32).map(|i| (0..2 + i * 7 % 13).collect()).collect();
        let task = TextTask::Masked { mask: 8, below: 8 };
        let mut run = PackedTexts::new(texts.clone(), &objective(16), task, 5).unwrap();
        let mut padding = [0, 0];
        for _ in 0..30 {
            run.next_feeds().unwrap();
            padding = [padding[0] + run.positions() - run.tokens(), padding[1] + run.positions()];
        }
        assert!(padding[0] * 10 < padding[1], "{padding:?}");
        let state: DataState = serde_json::from_value(run.position()).unwrap();
        let mut resumed = PackedTexts::resume(texts.clone(), &objective(16), task, state).unwrap();
        assert!((0..9).all(|_| run.next_feeds().unwrap() == resumed.next_feeds().unwrap()));
        let other = PackedTexts::resume(texts, &objective(17), task, state).unwrap_err().to_string();
        assert!(other.contains("belongs to other texts"), "{other}");
    }
}
