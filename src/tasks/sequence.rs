//! Sequences from sequences: translation, summaries, corrections.

use super::packed::with_documents;
use super::{Shapes, Task, TaskGraph, TaskMode, encoder, input, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::{Model, TokenInputs};
use crate::nn::{Context, KvSource};
use crate::ops;
use crate::shape::Shape;
use crate::train::LossAndStats;

/// An answer, `labels (B, T)`, to a text, `input_ids (B, S)`. The decoder reads `decoder_input_ids (B, T)`, which are the labels moved by
/// one behind the token that answers begin with.
#[derive(Debug)]
pub(super) struct SequenceToSequence;

impl Task for SequenceToSequence {
    fn name(&self) -> &'static str {
        "sequence-to-sequence"
    }

    /// Half of the tokens are read, the others are the answer's.
    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        let (read, said) = halves(length);
        let shape = |name: &str, length: usize| (name.to_owned(), Shape::new([texts, length]));
        vec![shape("input_ids", read), shape("labels", said)]
    }

    fn packs(&self) -> bool {
        true
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let no_decoder = || Error::input("model", "this task needs an encoder and a decoder, which it does not have");
        let (encoder, decoder) = (encoder(model)?, model.decoder().ok_or_else(no_decoder)?);
        let source = text(g, model, shapes, mode)?;
        let labels = input(g, shapes, "labels", DType::I32)?;
        let shape = g.shape(labels).clone();
        let ids = g.input("decoder_input_ids", shape, DType::U32)?;
        let encoded = encoder.encode(g, &source)?;
        let key_mask = if let KvSource::Uncached { key_mask } = source.kv { key_mask } else { None };
        let context = Context::States { states: encoded.states, key_mask };
        let mut inputs = TokenInputs::new(g, ids)?.with_context(context);
        if let Some(shape) = shapes("decoder_attention_mask") {
            inputs = inputs.with_mask(g.input("decoder_attention_mask", shape, DType::U32)?);
        }
        let inputs = with_documents(g, model, shapes, "decoder_", inputs)?;
        let inputs = TokenInputs { training: mode.training, dropout_seed: source.dropout_seed, ..inputs };
        let mut hidden = decoder.decode(g, &inputs)?;
        let head = decoder.lm_head(g)?;
        let logits = head.logits(g, hidden.states)?;
        let loss = head.loss(g, hidden.states, labels, &mode.cross_entropy())?;
        let loss = LossAndStats::over(loss, "labels", model.dimensions().vocabulary);
        hidden.auxiliary = match (encoded.auxiliary, hidden.auxiliary) {
            (Some(a), Some(b)) => Some(ops::add(g, a, b)?),
            (a, b) => a.or(b),
        };
        let named = |side: &'static str, routing: Vec<(String, Tensor)>| {
            routing.into_iter().map(move |(name, tensor)| {
                // Losses are called as transformers calls them.
                let joint = if name.ends_with("_loss") { '_' } else { '.' };
                (format!("{side}{joint}{name}"), tensor)
            })
        };
        let decided = std::mem::take(&mut hidden.routing);
        hidden.routing = named("encoder", encoded.routing).chain(named("decoder", decided)).collect();
        hidden.routers.splice(0..0, encoded.routers);
        let outputs = vec![("encoder_last_hidden_state".into(), encoded.states), ("logits".into(), logits)];
        Ok(TaskGraph::new(outputs, loss, hidden))
    }

    fn feed(
        &self,
        model: &dyn Model,
        name: &str,
        shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        let shifted = || {
            let (decoder, labels) = (model.decoder()?, file("labels")?);
            let padding = model.config()["pad_token_id"].as_i64().and_then(|id| i32::try_from(id).ok()).unwrap_or(0);
            if decoder.starts_with_last() {
                let rows = labels.chunks_exact(shape.last().max(1));
                return Some(rows.flat_map(|row| moved(row, row.len(), last(row, padding), padding)).collect());
            }
            let start = i32::try_from(decoder.start_token()?).ok()?;
            Some(moved(&labels, shape.last(), start, padding))
        };
        match name {
            "decoder_input_ids" => file(name).or_else(shifted),
            _ => file(name),
        }
    }
}

/// How many tokens of a row an encoder reads, and how many a decoder says.
pub(super) fn halves(length: usize) -> (usize, usize) {
    (length / 2, length - length / 2)
}

/// Labels moved by one in each row, behind `start`; what does not count becomes padding.
pub(super) fn moved(labels: &[i32], time: usize, start: i32, padding: i32) -> Vec<i32> {
    let real = |label: &i32| if *label < 0 { padding } else { *label };
    let row = |row: &[i32]| -> Vec<i32> { std::iter::once(start).chain(row[..time - 1].iter().map(real)).collect() };
    labels.chunks_exact(time.max(1)).flat_map(row).collect()
}

/// The last label of a row, by transformers' count of those that are no padding.
fn last(row: &[i32], padding: i32) -> i32 {
    let real = row.iter().filter(|label| **label >= 0 && **label != padding).count();
    row.get(real.saturating_sub(1)).copied().filter(|label| *label >= 0).unwrap_or(padding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_move_behind_the_token_that_answers_begin_with() {
        assert_eq!(moved(&[5, 6, 7, 8, -100, -100], 3, 9, 0), [9, 5, 6, 9, 8, 0]);
        assert_eq!([last(&[5, 6, 7], 1), last(&[5, 6, -100], 1), last(&[5, 1, 1], 1), last(&[-100], 1)], [7, 6, 5, 1]);
    }
}
