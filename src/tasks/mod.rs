//! Tasks: the inputs, outputs and loss of a use of a model, and how a file of examples becomes inputs.

mod answer;
#[cfg(all(feature = "files", feature = "tokenizers"))]
pub mod apply;
mod classify;
mod contrastive;
#[cfg(feature = "files")]
pub mod data;
mod embed;
#[cfg(feature = "tokenizers")]
mod embed_settings;
#[cfg(feature = "tokenizers")]
mod embedder;
mod language_model;
pub mod listops;
pub mod metrics;
mod objective;
mod packed;
mod padded;
mod reader;
mod rows;
mod sequence;
#[cfg(feature = "tokenizers")]
mod task_file;
#[cfg(feature = "tokenizers")]
mod windows;

pub use embed::{Embedder, Pooling};
#[cfg(feature = "tokenizers")]
pub use embed_settings::EmbedSettings;
#[cfg(feature = "tokenizers")]
pub use embedder::TextEmbedder;
pub use listops::{ListOps, ListOpsBatches};
pub use objective::{TaskObjective, TextBatches, TextTask, held_out_for};
pub use packed::{PackedTexts, packed_held_out};
pub use padded::{PaddedTexts, batch_lengths, padded_held_out};
pub use reader::{Reader, Reads};
pub use rows::{Row, RowBatches, RowSize, Target, rows_held_out};
#[cfg(feature = "tokenizers")]
pub use task_file::{Application, TaskFile};

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Graph, Tensor};
use crate::models::{Encoder, EncoderHead, Hidden, Model, TokenInputs};
use crate::nn::RouterStats;
use crate::ops::{self, CrossEntropyOptions};
use crate::shape::Shape;
use crate::train::{DROPOUT_SEED, LossAndStats};
use derive_setters::Setters;
use std::fmt::Debug;

/// What a graph of a task is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct TaskMode {
    /// Training: what is random there is.
    pub training: bool,
    /// [`CrossEntropyOptions::label_smoothing`] of classes and tokens.
    pub label_smoothing: f32,
}

impl TaskMode {
    /// Training, or not, without smoothing.
    #[must_use]
    pub fn new(training: bool) -> Self {
        Self { training, label_smoothing: 0.0 }
    }

    fn cross_entropy(self) -> CrossEntropyOptions {
        CrossEntropyOptions { label_smoothing: self.label_smoothing, ..CrossEntropyOptions::default() }
    }
}

/// The shape of an input, by transformers' name; `None` if it is absent.
pub type Shapes<'a> = &'a dyn Fn(&str) -> Option<Shape>;

/// A model with a task: results and loss as tensors of a graph.
#[derive(Clone, Debug)]
pub struct TaskGraph {
    /// The results, by transformers' names.
    pub outputs: Vec<(String, Tensor)>,
    /// Further tensors by name: decisions of routers, the vector of a text.
    pub routing: Vec<(String, Tensor)>,
    /// The loss by its parts.
    pub loss: LossAndStats,
    /// The losses of routers, which training adds to the loss.
    pub auxiliary: Option<Tensor>,
    /// The statistics of routers.
    pub routers: Vec<RouterStats>,
}

impl TaskGraph {
    /// The outputs and loss of a model with these final states.
    fn new(outputs: Vec<(String, Tensor)>, loss: LossAndStats, hidden: Hidden) -> Self {
        let Hidden { auxiliary, routing, routers, .. } = hidden;
        Self { outputs, routing, loss, auxiliary, routers }
    }

    /// The loss of a step, with the losses of routers if it trains, and their statistics.
    ///
    /// # Errors
    /// Those of [`ops::add`].
    pub fn loss_and_stats(&self, g: &mut Graph, training: bool) -> Result<LossAndStats> {
        let even = match (self.loss.even, self.auxiliary.filter(|_| training)) {
            (Some(a), Some(b)) => Some(ops::add(g, a, b)?),
            (a, b) => a.or(b),
        };
        Ok(LossAndStats { even, routers: self.routers.clone(), ..self.loss.clone() })
    }
}

/// A task: inputs, outputs and loss.
///
/// Inputs are `input_ids (B, T)`, optionally `attention_mask (B, T)`, 0 on padding, and `token_type_ids (B, T)`, and the labels that
/// [`Task::labels`] names.
pub trait Task: Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// The labels: i32, of which negative ones are ignored, or f32 where the task's documentation says so.
    fn labels(&self) -> &'static [&'static str] {
        &["labels"]
    }

    /// The shapes of the required inputs, for a batch of texts of a length.
    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        let shape = |name: &str| (name.to_owned(), Shape::new([texts, length]));
        std::iter::once("input_ids").chain(self.labels().iter().copied()).map(shape).collect()
    }

    /// Whether rows may hold several texts. Such rows have the inputs `documents (B, T, 2)`, the first token of each token's text and one past
    /// the last, and `position_ids (B, T)`; a decoder behind an encoder has both with the prefix `decoder_`, and `cross_documents (B, T, 2)`,
    /// the encoder's tokens of the same text. See [`TaskObjective::on_packed_text`].
    fn packs(&self) -> bool {
        false
    }

    /// Adds a model with inputs of these shapes.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is not made for the task, or an input is missing; those of the ops.
    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph>;

    /// The words of an input of that shape (f32 as bits), from the named tensors of a file of examples.
    fn feed(
        &self,
        _model: &dyn Model,
        name: &str,
        _shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        file(name)
    }
}

/// The task that a model was made for.
///
/// # Errors
/// [`Error::Input`] if it has neither side.
pub fn task_of(model: &dyn Model) -> Result<&'static dyn Task> {
    if model.encoder().is_some() && model.decoder().is_some() {
        return Ok(&sequence::SequenceToSequence);
    }
    if model.decoder().is_some() {
        return Ok(&language_model::LanguageModelling);
    }
    Ok(match encoder(model)?.head_kind() {
        EncoderHead::None => &embed::Embedding,
        EncoderHead::NextToken => &language_model::LanguageModelling,
        EncoderHead::MaskedLanguageModel => &language_model::MaskedLanguageModelling,
        EncoderHead::PreTraining => &language_model::PRE_TRAINING,
        EncoderHead::SentenceOrder => &language_model::SENTENCE_ORDER,
        EncoderHead::ReplacedTokens => &classify::ReplacedTokens,
        EncoderHead::NextSentence => &classify::NextSentence,
        EncoderHead::SequenceClassification { .. } => &classify::SequenceClassification,
        EncoderHead::TokenClassification { .. } => &classify::TokenClassification,
        EncoderHead::QuestionAnswering => &answer::SpanAnswering,
        EncoderHead::MultipleChoice => &classify::MultipleChoice,
    })
}

/// The encoder of a model.
fn encoder(model: &dyn Model) -> Result<&dyn Encoder> {
    model.encoder().ok_or_else(|| Error::input("model", "this task needs an encoder, which it does not have"))
}

/// [`Task::shapes`] of a task with one label per text.
fn label_a_text(labels: &[&str], texts: usize, length: usize) -> Vec<(String, Shape)> {
    let ids = ("input_ids".to_owned(), Shape::new([texts, length]));
    std::iter::once(ids).chain(labels.iter().map(|name| ((*name).to_owned(), Shape::new([texts])))).collect()
}

/// A required input.
fn input(g: &mut Graph, shapes: Shapes<'_>, name: &str, dtype: DType) -> Result<Tensor> {
    match shapes(name) {
        Some(shape) => g.input(name, shape, dtype),
        None => Err(Error::input(name, "is missing: the task needs it")),
    }
}

/// The text inputs of a model as rows of tokens: ids, and mask and part numbers where they are given.
fn text(g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TokenInputs> {
    let ids = input(g, shapes, "input_ids", DType::U32)?;
    // Each choice becomes a row.
    let [rows, time] = [g.shape(ids).rows(), g.shape(ids).last()];
    let as_rows = |g: &mut Graph, tensor: Tensor| ops::reshape(g, tensor, [rows, time]);
    let ids = as_rows(g, ids)?;
    let mut inputs = TokenInputs::new(g, ids)?;
    inputs.training = mode.training;
    if mode.training
        && (model.has_dropout() || g.storage().adapters.as_ref().is_some_and(|adapters| adapters.have_dropout()))
    {
        inputs = inputs.with_dropout(g.input(DROPOUT_SEED, [2], DType::U32)?);
    }
    if let Some(shape) = shapes("attention_mask") {
        let mask = g.input("attention_mask", shape, DType::U32)?;
        let mask = as_rows(g, mask)?;
        inputs = inputs.with_mask(mask);
    }
    if let Some(shape) = shapes("token_type_ids") {
        let types = g.input("token_type_ids", shape, DType::U32)?;
        let types = as_rows(g, types)?;
        inputs = inputs.with_types(types);
    }
    packed::with_documents(g, model, shapes, "", inputs)
}
