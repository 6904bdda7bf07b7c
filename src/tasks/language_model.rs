//! Language models: the next word, or the one behind a mask.

use super::{Shapes, Task, TaskGraph, TaskMode, encoder, input, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::Model;
use crate::ops;
use crate::shape::Shape;
use crate::train::LossAndStats;

/// The next token, by a decoder.
#[derive(Debug)]
pub(super) struct LanguageModelling;

impl Task for LanguageModelling {
    fn name(&self) -> &'static str {
        "language-model"
    }

    fn packs(&self) -> bool {
        true
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let no_decoder = || Error::input("model", "this task needs a decoder, which it does not have");
        let decoder = model.decoder().ok_or_else(no_decoder)?;
        let inputs = text(g, model, shapes, mode)?;
        let shape = g.shape(inputs.ids).clone();
        let labels = g.input("labels", shape, DType::I32)?;
        let hidden = decoder.decode(g, &inputs)?;
        let head = decoder.lm_head(g)?;
        let logits = head.logits(g, hidden.states)?;
        let loss = head.loss(g, hidden.states, labels, &mode.cross_entropy())?;
        let loss = LossAndStats::over(loss, "labels", model.dimensions().vocabulary);
        Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
    }

    /// `labels[t]` is the token behind `input_ids[t]`: files have it at `t + 1`, and behind the last there is none. Without labels of
    /// their own, the tokens themselves are to be predicted.
    fn feed(
        &self,
        _model: &dyn Model,
        name: &str,
        shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        match name {
            "labels" => Some(next_tokens(&file(name).or_else(|| file("input_ids"))?, shape.last())),
            _ => file(name),
        }
    }
}

fn next_tokens(labels: &[i32], time: usize) -> Vec<i32> {
    labels.chunks_exact(time.max(1)).flat_map(|row| row.iter().skip(1).copied().chain([-100])).collect()
}

/// The tokens behind masks, by an encoder.
#[derive(Debug)]
pub(super) struct MaskedLanguageModelling;

impl Task for MaskedLanguageModelling {
    fn name(&self) -> &'static str {
        "masked-language-model"
    }

    fn packs(&self) -> bool {
        true
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let encoder = encoder(model)?;
        let inputs = text(g, model, shapes, mode)?;
        let labels = input(g, shapes, "labels", DType::I32)?;
        let hidden = encoder.encode(g, &inputs)?;
        let (states, head) = encoder.mlm_head(g, hidden.states)?;
        let logits = head.logits(g, states)?;
        let loss = head.loss(g, states, labels, &mode.cross_entropy())?;
        let loss = LossAndStats::over(loss, "labels", model.dimensions().vocabulary);
        Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
    }
}

/// The tokens behind masks, and what is said of the two parts of a text.
#[derive(Debug)]
pub(super) struct PreTraining {
    name: &'static str,
    /// What is right: of tokens, and of texts.
    labels: &'static [&'static str; 2],
    /// The logits of texts.
    logits: &'static str,
}

/// Whether the second part of a text follows the first.
pub(super) const PRE_TRAINING: PreTraining =
    PreTraining { name: "pre-training", labels: &["labels", "next_sentence_label"], logits: "seq_relationship_logits" };

/// Whether the parts are in their order (class 0) or not (1).
pub(super) const SENTENCE_ORDER: PreTraining =
    PreTraining { name: "sentence-order", labels: &["labels", "sentence_order_label"], logits: "sop_logits" };

impl Task for PreTraining {
    fn name(&self) -> &'static str {
        self.name
    }

    fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        let words = ["input_ids", "labels"].map(|name| (name.to_owned(), Shape::new([texts, length])));
        words.into_iter().chain([(self.labels[1].into(), Shape::new([texts]))]).collect()
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let encoder = encoder(model)?;
        let inputs = text(g, model, shapes, mode)?;
        let labels = input(g, shapes, "labels", DType::I32)?;
        let next = input(g, shapes, self.labels[1], DType::I32)?;
        let hidden = encoder.encode(g, &inputs)?;
        let (states, head) = encoder.mlm_head(g, hidden.states)?;
        let logits = head.logits(g, states)?;
        let words = head.loss(g, states, labels, &mode.cross_entropy())?;
        let follows = encoder.class_logits(g, hidden.states, &inputs)?;
        let sentences = ops::cross_entropy(g, follows, next, &mode.cross_entropy())?;
        let loss = LossAndStats::over(words, "labels", model.dimensions().vocabulary);
        let loss = loss.and(sentences, self.labels[1], g.shape(follows).last());
        let outputs = vec![("prediction_logits".into(), logits), (self.logits.into(), follows)];
        Ok(TaskGraph::new(outputs, loss, hidden))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_by_one_in_each_row() {
        assert_eq!(next_tokens(&[1, 2, 3, 4, 5, 6], 3), [2, 3, -100, 5, 6, -100]);
    }
}
