//! Answers that are parts of a text.

use super::{Shapes, Task, TaskGraph, TaskMode, encoder, input, label_a_text, text};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::models::Model;
use crate::ops;
use crate::shape::Shape;
use crate::train::LossAndStats;

/// Where an answer begins and ends: `start_logits`, `end_logits (B, T)`, `start_positions`, `end_positions (B)`. In files, a position
/// beyond the text does not count, and one below 0 stands for the first token, as in transformers. The loss is the mean of both cross-entropies.
#[derive(Debug)]
pub(super) struct SpanAnswering;

impl Task for SpanAnswering {
    fn name(&self) -> &'static str {
        "question-answering"
    }

    fn labels(&self) -> &'static [&'static str] {
        &["start_positions", "end_positions"]
    }

    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        label_a_text(self.labels(), texts, length)
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let encoder = encoder(model)?;
        let inputs = text(g, model, shapes, mode)?;
        let [rows, time] = g.shape(inputs.ids).expect("input_ids")?;
        let [start, end] =
            [input(g, shapes, "start_positions", DType::I32)?, input(g, shapes, "end_positions", DType::I32)?];
        let hidden = encoder.encode(g, &inputs)?;
        let logits = encoder.class_logits(g, hidden.states, &inputs)?;
        let part = |g: &mut Graph, index: usize, labels: Tensor| -> Result<[Tensor; 2]> {
            let logits = ops::slice(g, logits, 2, index, 1)?;
            let logits = ops::reshape(g, logits, [rows, time])?;
            let loss = ops::cross_entropy(g, logits, labels, &mode.cross_entropy())?;
            // Each is half of the loss.
            Ok([logits, ops::scale(g, loss, 0.5)?])
        };
        let [start_logits, start_loss] = part(g, 0, start)?;
        let [end_logits, end_loss] = part(g, 1, end)?;
        let loss = LossAndStats::over(start_loss, "start_positions", time).and(end_loss, "end_positions", time);
        let outputs = vec![("start_logits".into(), start_logits), ("end_logits".into(), end_logits)];
        Ok(TaskGraph::new(outputs, loss, hidden))
    }
    fn feed(
        &self,
        _model: &dyn Model,
        name: &str,
        _shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        let values = file(name)?;
        if !self.labels().contains(&name) {
            return Some(values);
        }
        let time = file("input_ids")?.len() / values.len().max(1);
        Some(values.into_iter().map(|position| within(position, time)).collect())
    }
}

/// A position in a text of so many tokens; one beyond it does not count.
fn within(position: i32, time: usize) -> i32 {
    if usize::try_from(position).is_ok_and(|position| position >= time) { -100 } else { position.max(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_beyond_the_text_do_not_count_and_those_in_front_are_its_first() {
        assert_eq!([-100, -1, 0, 6, 7, 1000].map(|position| within(position, 7)), [0, 0, 0, 6, -100, -100]);
    }
}
