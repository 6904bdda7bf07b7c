//! Hidden states, to be used as they are.

use super::reader::{Reader, Reads};
use super::rows::Row;
use super::{Shapes, Task, TaskGraph, TaskMode, encoder, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Array, Graph};
use crate::io::Config;
use crate::models::Model;
use crate::nn::KvSource;
use crate::ops;
use crate::program::Weights;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The states of an encoder without a head: `last_hidden_state (B, T, C)`. The loss is the mean square of the states of real tokens,
/// padding, wherever it is, counting as zero.
#[derive(Debug)]
pub(super) struct Embedding;

impl Task for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn labels(&self) -> &'static [&'static str] {
        &[]
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let inputs = text(g, model, shapes, mode)?;
        let encoder = encoder(model)?;
        let mut hidden = encoder.encode(g, &inputs)?;
        let states = hidden.states;
        if let Some(pooled) = encoder.pooled(g, states)? {
            hidden.routing.push(("pooler_output".into(), pooled));
        }
        let mut real = states;
        if let KvSource::Uncached { key_mask: Some(mask) } = inputs.kv {
            // Rows of zeros and of ones, looked up by the mask.
            let d_model = g.shape(states).last();
            let rows = Array::new([2, d_model], [vec![0.0; d_model], vec![1.0; d_model]].concat())?;
            let rows = g.constant("real", rows, DType::F32);
            let ones = ops::embedding(g, rows, mask)?;
            real = ops::mul(g, states, ones)?;
        }
        let squares = ops::mul(g, real, real)?;
        let loss = ops::mean(g, squares)?;
        Ok(TaskGraph::new(vec![("last_hidden_state".into(), states)], loss.into(), hidden))
    }
}

/// Which states of a text's tokens become its vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// That of the first token.
    Cls,
}

impl Pooling {
    /// The names in options.
    pub const NAMES: [(&str, Self); 2] = [("mean", Self::Mean), ("cls", Self::Cls)];

    /// That of a GGUF file, whose configuration names it; none where it does not, or the model is of a folder.
    ///
    /// # Errors
    /// [`Error::Format`] if it is another word.
    pub fn of(config: &Config) -> Result<Option<Self>> {
        config.optional("pooling")
    }

    /// What is read of a model.
    pub(super) fn reads(self) -> Reads {
        match self {
            Self::Mean => Reads::Mean,
            Self::Cls => Reads::First,
        }
    }
}

/// An encoder that turns texts into vectors of length 1: the mean of the states of a text's tokens, or the first token's, divided by its length.
///
/// Texts are near in meaning if the product of their vectors, which is the cosine of their angle, is near 1.
#[derive(Debug)]
pub struct Embedder {
    reader: Reader,
}

impl Embedder {
    /// Makes an encoder ready for `batch` texts at a time.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is no encoder, or the batch is 0.
    pub fn new(gpu: &Gpu, model: Arc<dyn Model>, weights: &Weights, batch: usize) -> Result<Self> {
        Self::with_pooling(gpu, model, weights, batch, Pooling::Mean)
    }

    /// [`Embedder::new`] with other states: those of [`Pooling::of`].
    ///
    /// # Errors
    /// As [`Embedder::new`].
    pub fn with_pooling(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        batch: usize,
        pooling: Pooling,
    ) -> Result<Self> {
        if batch == 0 {
            return Err(Error::input("batch", "0 is given; at least 1 is needed"));
        }
        Ok(Self { reader: Reader::new(gpu, model, weights, pooling.reads())?.with_rows(batch) })
    }

    /// The vectors of texts, given as their tokens with the special ones that the model was trained with
    /// ([`crate::io::Tokenizer::encode_for_model`]).
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub fn embed(&mut self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let rows: Vec<Row> = texts.iter().map(|ids| Row { ids: ids.clone(), ..Row::default() }).collect();
        let mut vectors = self.reader.read(&rows)?;
        vectors.iter_mut().for_each(|vector| to_unit_length(vector));
        Ok(vectors)
    }

    /// The share of padding in the batches so far.
    #[must_use]
    pub fn padding(&self) -> f64 {
        self.reader.padding()
    }
}

/// Divides a vector by its length; one of zeros stays.
pub(super) fn to_unit_length(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    if squares > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / squares.sqrt()) as f32);
    }
}
