//! Language modelling: windows of tokens as the inputs `ids` and `labels` of a model.

use super::data::{Batch, Batches};
use super::loss::LossAndStats;
use super::objective::{BatchSource, DROPOUT_SEED, Feeds, HeldOut, Objective};
use super::windows::in_order;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Graph, Storage, Tensor};
use crate::models::{Decoder, TokenInputs};
use crate::ops::CrossEntropyOptions;
use crate::shape::TensorType;
use std::sync::Arc;

/// The input of token ids, `(rows, length)` u32.
pub const IDS: &str = "ids";
/// The input of next tokens, `(rows, length)` i32; negative ones are ignored.
pub const LABELS: &str = "labels";

/// The input of the tree mask, `(rows, length, 3)` u32: the position of a token, and the first and last position of the span that it covers.
pub const TREE_MASK: &str = "tree";

/// A decoder that learns to predict the next token, from the inputs [`IDS`] and [`LABELS`].
#[derive(Clone, Debug)]
pub struct LanguageModel {
    /// The decoder.
    pub model: Arc<dyn Decoder>,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Tokens of a row.
    pub length: usize,
    /// Additional terms of the loss; evaluation uses neither them nor the losses of routers.
    pub options: CrossEntropyOptions,
}

impl Objective for LanguageModel {
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
        self.model.parameters_in(storage)
    }

    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor> {
        self.measure(g, training, false)?.loss(g)
    }

    fn loss_and_stats(&self, g: &mut Graph) -> Result<LossAndStats> {
        self.measure(g, true, false)
    }
}

impl LanguageModel {
    fn measure(&self, g: &mut Graph, training: bool, has_tree: bool) -> Result<LossAndStats> {
        let shape = [self.rows, self.length];
        let ids = g.input(IDS, shape, DType::U32)?;
        let labels = g.input(LABELS, shape, DType::I32)?;
        let mut inputs = TokenInputs::new(g, ids)?;
        inputs.training = training;
        if training && self.model.has_dropout() {
            inputs = inputs.with_dropout(g.input(DROPOUT_SEED, [2], DType::U32)?);
        }
        if has_tree {
            inputs = inputs.with_tree(g.input(TREE_MASK, [self.rows, self.length, 3], DType::U32)?);
        }
        let options = if training { self.options } else { CrossEntropyOptions::default() };
        let hidden = self.model.decode(g, &inputs)?;
        let loss = self.model.loss_of(g, hidden.states, labels, &options)?;
        let even = hidden.auxiliary.filter(|_| training);
        let classes = self.model.dimensions().vocabulary;
        Ok(LossAndStats { even, routers: hidden.routers, ..LossAndStats::over(loss, LABELS, classes) })
    }
}

/// The same for texts with a tree mask, which limits attention: one more input, [`TREE_MASK`].
#[derive(Clone, Debug)]
pub struct TreeLanguageModel(pub LanguageModel);

impl Objective for TreeLanguageModel {
    fn parameters(&self, storage: &Storage) -> Result<Vec<(String, TensorType)>> {
        self.0.parameters(storage)
    }

    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor> {
        self.0.measure(g, training, true)?.loss(g)
    }

    fn loss_and_stats(&self, g: &mut Graph) -> Result<LossAndStats> {
        self.0.measure(g, true, true)
    }
}

impl Batch {
    /// The batch as the inputs [`IDS`] and [`LABELS`].
    #[must_use]
    pub fn feeds(&self) -> Feeds {
        let ids = self.inputs.iter().flat_map(|id| id.to_le_bytes()).collect();
        let labels = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        vec![(IDS.into(), ids), (LABELS.into(), labels)]
    }
}

impl BatchSource for Batches {
    fn next_feeds(&mut self) -> Result<Feeds> {
        Ok(self.next_batch().feeds())
    }

    fn position(&self) -> serde_json::Value {
        let state = self.state();
        serde_json::json!({"seed": state.seed, "epoch": state.epoch, "cursor": state.cursor, "text": state.text})
    }

    fn tokens(&self) -> u64 {
        let (rows, length) = self.size();
        (rows * length) as u64
    }
}

/// All tokens once, in batches of one size, for evaluation.
#[must_use]
pub fn held_out(tokens: &[u32], rows: usize, length: usize) -> Vec<HeldOut> {
    let batches = in_order(tokens, rows, length);
    batches.iter().map(|batch| HeldOut { feeds: batch.feeds(), weight: batch.counted() as f64 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::DataState;

    #[test]
    fn a_position_survives_json() {
        let tokens: Vec<u32> = (0..100).collect();
        let mut batches = Batches::new(tokens.clone().into(), 2, 7, 5).unwrap();
        let first = batches.next_feeds().unwrap();
        let state: DataState = serde_json::from_value(batches.position()).unwrap();
        let mut again = Batches::resume(tokens.into(), 2, 7, state).unwrap();
        assert_eq!(batches.next_feeds().unwrap(), again.next_feeds().unwrap());
        assert_eq!((first[0].0.as_str(), first[0].1.len(), batches.tokens()), (IDS, 2 * 7 * 4, 14));
    }

    #[test]
    fn what_fills_up_a_held_out_batch_does_not_count() {
        let tokens: Vec<u32> = (0..10).collect();
        let batches = held_out(&tokens, 2, 4);
        assert_eq!(batches.iter().map(|b| b.weight).collect::<Vec<_>>(), [8.0, 1.0]);
    }
}
