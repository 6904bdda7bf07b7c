//! Language modelling on text: the objective and the data of a decoder that learns to predict the next token.

use super::data::{Batch, Batches, DataState, in_order};
use super::objective::{BatchSource, DROPOUT_SEED, Feeds, HeldOut, Objective};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::{Decoder, Inputs};
use crate::ops::CrossEntropyOptions;
use crate::shape::TensorType;
use serde_json::Value;
use std::sync::Arc;

/// The mean cross-entropy of a decoder's next tokens over windows of text: inputs `ids` and `labels`, `(batch, context)`.
#[derive(Debug)]
pub struct NextToken<'a> {
    /// The model.
    pub model: &'a dyn Decoder,
    /// Windows of a micro-batch.
    pub batch: usize,
    /// Tokens of a window.
    pub context: usize,
    /// Label smoothing and z-loss, in training only.
    pub options: CrossEntropyOptions,
    /// Whether the model's dropout is on in training.
    pub dropout: bool,
}

impl Objective for NextToken<'_> {
    fn parameters(&self) -> Result<Vec<(String, TensorType)>> {
        self.model.parameters()
    }

    fn loss(&self, g: &mut Graph, training: bool) -> Result<Tensor> {
        let longest = self.model.dimensions().positions;
        if self.context > longest {
            return Err(Error::input("context", format!("it is {}, the model has {longest} positions", self.context)));
        }
        let ids = g.input("ids", [self.batch, self.context], DType::U32)?;
        let labels = g.input("labels", [self.batch, self.context], DType::I32)?;
        let mut inputs = Inputs::new(g, ids)?;
        if training && self.dropout {
            inputs = inputs.with_dropout(g.input(DROPOUT_SEED, [2], DType::U32)?);
        }
        let options = if training { self.options.clone() } else { CrossEntropyOptions::default() };
        self.model.loss(g, &inputs, labels, &options)
    }
}

/// Windows of a text in random order, endlessly.
#[derive(Clone, Debug)]
pub struct TextSource {
    batches: Batches,
    cells: u64,
}

impl TextSource {
    /// Batches of `batch` windows of `context` tokens.
    ///
    /// # Errors
    /// [`Error::Input`] if the text has no window of that length.
    pub fn new(tokens: Arc<[u32]>, batch: usize, context: usize, seed: u64) -> Result<Self> {
        Ok(Self { batches: Batches::new(tokens, batch, context, seed)?, cells: (batch * context) as u64 })
    }

    /// The same, from a position that [`BatchSource::position`] gave.
    ///
    /// # Errors
    /// [`Error::Input`] if the position is none, or not of a text of this length.
    pub fn resume(tokens: Arc<[u32]>, batch: usize, context: usize, position: &Value) -> Result<Self> {
        let state: DataState = serde_json::from_value(position.clone())
            .map_err(|e| Error::input("the position in the data", format!("{e}; the checkpoint is of another run")))?;
        Ok(Self { batches: Batches::resume(tokens, batch, context, state)?, cells: (batch * context) as u64 })
    }
}

impl BatchSource for TextSource {
    fn next_feeds(&mut self) -> Result<Feeds> {
        Ok(feeds(&self.batches.next_batch()))
    }

    fn position(&self) -> Value {
        // Three numbers always serialise.
        serde_json::to_value(self.batches.state()).unwrap_or_default()
    }

    fn tokens(&self) -> u64 {
        self.cells
    }
}

/// At most `limit` batches of held-out tokens, spread evenly over them, each once and in order.
#[must_use]
pub fn held_out(tokens: &[u32], batch: usize, context: usize, limit: usize) -> Vec<HeldOut> {
    let batches = in_order(tokens, batch, context);
    let stride = batches.len().div_ceil(limit.max(1)).max(1);
    let weighted = |b: &Batch| HeldOut { feeds: feeds(b), weight: b.counted() as f64 };
    batches.iter().step_by(stride).map(weighted).collect()
}

fn feeds(batch: &Batch) -> Feeds {
    vec![
        ("ids".into(), bytemuck::cast_slice(&batch.inputs).to_vec()),
        ("labels".into(), bytemuck::cast_slice(&batch.labels).to_vec()),
    ]
}
