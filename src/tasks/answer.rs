//! Answers that are parts of a text.

use super::{Shapes, Task, TaskGraph, encoder, input, text};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Tensor};
use crate::models::Model;
use crate::ops::{self, CrossEntropyOptions};
use crate::train::LossAndStats;

/// Where an answer begins and ends: `start_logits`, `end_logits (B, T)`, `start_positions`, `end_positions (B)`. A position beyond
/// the text does not count. The loss is the mean of both cross-entropies.
#[derive(Debug)]
pub(super) struct SpanAnswering;

impl Task for SpanAnswering {
    fn name(&self) -> &'static str {
        "question-answering"
    }

    fn labels(&self) -> &'static [&'static str] {
        &["start_positions", "end_positions"]
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        let encoder = encoder(model)?;
        let inputs = text(g, model, shapes, training)?;
        let [rows, time] = g.shape(inputs.ids).expect("input_ids")?;
        let [start, end] =
            [input(g, shapes, "start_positions", DType::I32)?, input(g, shapes, "end_positions", DType::I32)?];
        let hidden = encoder.encode(g, &inputs)?;
        let logits = encoder.class_logits(g, hidden.states, &inputs)?;
        let part = |g: &mut Graph, index: usize, labels: Tensor| -> Result<[Tensor; 2]> {
            let logits = ops::slice(g, logits, 2, index, 1)?;
            let logits = ops::reshape(g, logits, [rows, time])?;
            let loss = ops::cross_entropy(g, logits, labels, &CrossEntropyOptions::default())?;
            // Each is half of the loss.
            Ok([logits, ops::scale(g, loss, 0.5)?])
        };
        let [start_logits, start_loss] = part(g, 0, start)?;
        let [end_logits, end_loss] = part(g, 1, end)?;
        let loss = LossAndStats::over(start_loss, "start_positions", time).and(end_loss, "end_positions", time);
        let outputs = vec![("start_logits".into(), start_logits), ("end_logits".into(), end_logits)];
        Ok(TaskGraph::new(outputs, loss, hidden))
    }
}
