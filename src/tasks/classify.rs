//! Classification of rows and of tokens, and multiple choice.

use super::rows::WEIGHTS;
use super::{Shapes, Task, TaskGraph, TaskMode, encoder, input, label_a_text, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::models::{EncoderHead, Hidden, Model};
use crate::ops;
use crate::shape::Shape;
use crate::train::LossAndStats;

/// Classification or regression of each row: `logits (B, labels)`, and by `problem_type`
///
/// | `problem_type` | `labels` | loss |
/// |---|---|---|
/// | single_label_classification | i32 `(B)`, a class | mean cross-entropy |
/// | single_label_classification | f32 `(B, labels)`, the probability of each class, times the weight of the text | mean of −Σ label · log softmax |
/// | multi_label_classification | f32 `(B, labels)`, the probability of each class | mean of log(1 + exp x) − x · label |
/// | regression | f32 `(B, labels)`, or `(B)` if there is one | mean of (x − label)² |
///
/// For numbers there may be weights of the texts, `label_weights (B)` f32, that sum to 1.
///
/// Without a `problem_type`, as in transformers: a single logit is a regression, labels of two axes are those of several classes.
#[derive(Debug)]
pub(super) struct SequenceClassification;

impl Task for SequenceClassification {
    fn name(&self) -> &'static str {
        "sequence-classification"
    }

    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        label_a_text(self.labels(), texts, length)
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let config = model.config();
        let EncoderHead::SequenceClassification { labels } = encoder(model)?.head_kind() else {
            return classes(g, model, shapes, mode);
        };
        let two_axes = || shapes("labels").is_some_and(|shape| shape.rank() == 2);
        match config[PROBLEM].as_str() {
            Some("regression") => numbers(g, model, shapes, mode, &squares),
            Some("multi_label_classification") => numbers(g, model, shapes, mode, &several_classes),
            Some(_) if two_axes() => {
                numbers(g, model, shapes, mode, &|g, logits, labels| shares(g, logits, labels, mode))
            }
            None if labels == 1 => numbers(g, model, shapes, mode, &squares),
            None if two_axes() => numbers(g, model, shapes, mode, &several_classes),
            _ => classes(g, model, shapes, mode),
        }
    }
}

/// The class of each token: `logits (B, T, labels)`, `labels (B, T)`.
#[derive(Debug)]
pub(super) struct TokenClassification;

impl Task for TokenClassification {
    fn name(&self) -> &'static str {
        "token-classification"
    }

    fn packs(&self) -> bool {
        true
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        classes(g, model, shapes, mode)
    }
}

/// The key of the kind of labels.
const PROBLEM: &str = "problem_type";

/// The logits of a model's classes, and `loss` of them and of `labels`, f32.
fn numbers(
    g: &mut Graph,
    model: &dyn Model,
    shapes: Shapes<'_>,
    mode: TaskMode,
    loss: &dyn Fn(&mut Graph, Tensor, Tensor) -> Result<Tensor>,
) -> Result<TaskGraph> {
    let Scored { labels, hidden, logits, .. } = scored(g, model, shapes, mode, DType::F32)?;
    let (wanted, got) = (g.shape(logits).clone(), g.shape(labels).clone());
    if got.numel() != wanted.numel() || got.dims().first() != wanted.dims().first() {
        return Err(Error::input("labels", format!("f32{wanted} is needed, a number for each logit, got f32{got}")));
    }
    let columns = wanted.last();
    let labels = ops::reshape(g, labels, wanted)?;
    let losses = loss(g, logits, labels)?;
    let loss = match shapes(WEIGHTS) {
        Some(shape) => {
            let weights = g.input(WEIGHTS, shape, DType::F32)?;
            let rows = ops::sum_last(g, losses)?;
            let weighted = ops::mul(g, rows, weights)?;
            let sum = ops::sum(g, weighted)?;
            ops::scale(g, sum, 1.0 / columns as f32)?
        }
        None => ops::mean(g, losses)?,
    };
    Ok(TaskGraph::new(vec![("logits".into(), logits)], loss.into(), hidden))
}

/// `(x − label)²`.
fn squares(g: &mut Graph, logits: Tensor, labels: Tensor) -> Result<Tensor> {
    let differences = ops::sub(g, logits, labels)?;
    ops::mul(g, differences, differences)
}

/// `log(1 + exp x) − x · label`, the binary cross-entropy, as −log softmax (x, 0) of each class.
fn several_classes(g: &mut Graph, logits: Tensor, labels: Tensor) -> Result<Tensor> {
    let shape = g.shape(logits).clone();
    let rows = ops::reshape(g, logits, [shape.numel(), 1])?;
    let zeros = g.constant("zeros", Array::zeros([shape.numel(), 1]), DType::F32);
    let pairs = ops::concat(g, &[rows, zeros], 1)?;
    let logs = ops::log_softmax(g, pairs)?;
    // The second is −log(1 + exp x).
    let none_holds = ops::slice(g, logs, 1, 1, 1)?;
    let none_holds = ops::reshape(g, none_holds, shape)?;
    let held = ops::mul(g, logits, labels)?;
    let sum = ops::add(g, none_holds, held)?;
    ops::scale(g, sum, -1.0)
}

/// `−classes · label · log softmax x`: its mean over rows and classes is that of the rows' cross-entropies. Smoothed, a share ε of the labels is
/// spread over all classes.
fn shares(g: &mut Graph, logits: Tensor, labels: Tensor, mode: TaskMode) -> Result<Tensor> {
    let (classes, smoothing) = (g.shape(logits).last(), f64::from(mode.label_smoothing));
    let mut labels = labels;
    if smoothing > 0.0 {
        let spread = smoothing / classes as f64;
        let entry = |at: usize| if at.is_multiple_of(classes + 1) { 1.0 - smoothing + spread } else { spread };
        let matrix = g.constant("smoothing", Array::from_fn([classes, classes], entry), DType::F32);
        labels = ops::matmul(g, labels, matrix)?;
    }
    let logs = ops::log_softmax(g, logits)?;
    let parts = ops::mul(g, logs, labels)?;
    ops::scale(g, parts, -(classes as f32))
}

/// Whether each token was put in place of another (1) or not (0): `logits (B, T)`, `labels (B, T)`; the loss is the mean of
/// log(1 + exp x) − x · label over real tokens. In files, labels of padding do not count.
#[derive(Debug)]
pub(super) struct ReplacedTokens;

impl Task for ReplacedTokens {
    fn name(&self) -> &'static str {
        "replaced-token-detection"
    }

    fn packs(&self) -> bool {
        true
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let Scored { labels, hidden, logits, ids } = scored(g, model, shapes, mode, DType::I32)?;
        // It is the cross-entropy of (0, x).
        let zeros = g.constant("zeros", Array::zeros(g.shape(logits).clone()), DType::F32);
        let pairs = ops::concat(g, &[zeros, logits], 2)?;
        let loss = ops::cross_entropy(g, pairs, labels, &mode.cross_entropy())?;
        let loss = LossAndStats::over(loss, "labels", 2);
        let shape = g.shape(ids).clone();
        let logits = ops::reshape(g, logits, shape)?;
        Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
    }

    fn feed(
        &self,
        _model: &dyn Model,
        name: &str,
        _shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        let values = file(name)?;
        let Some(mask) = file("attention_mask").filter(|_| name == "labels") else { return Some(values) };
        Some(values.into_iter().zip(mask).map(|(label, real)| if real == 0 { -100 } else { label }).collect())
    }
}

/// The former name of the labels of [`NextSentence`].
const OLDER: &str = "next_sentence_label";

/// Whether the second part of a text follows the first (class 0) or not (1): `logits (B, 2)`, `labels (B)`.
#[derive(Debug)]
pub(super) struct NextSentence;

impl Task for NextSentence {
    fn name(&self) -> &'static str {
        "next-sentence"
    }

    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        label_a_text(self.labels(), texts, length)
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let shapes = |name: &str| shapes(name).or_else(|| shapes(OLDER).filter(|_| name == "labels"));
        classes(g, model, &shapes, mode)
    }

    fn feed(
        &self,
        _model: &dyn Model,
        name: &str,
        _shape: &Shape,
        file: &dyn Fn(&str) -> Option<Vec<i32>>,
    ) -> Option<Vec<i32>> {
        file(name).or_else(|| file(OLDER).filter(|_| name == "labels"))
    }
}

/// Multiple choice: `input_ids (B, choices, T)`, `logits (B, choices)`, `labels (B)`.
#[derive(Debug)]
pub(super) struct MultipleChoice;

impl Task for MultipleChoice {
    fn name(&self) -> &'static str {
        "multiple-choice"
    }

    /// Two choices per question.
    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        vec![("input_ids".into(), Shape::new([texts, 2, length])), ("labels".into(), Shape::new([texts]))]
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let Some(&[batch, choices, _]) = shapes("input_ids").as_ref().map(Shape::dims).and_then(three) else {
            return Err(Error::input("input_ids", "(batch, choices, tokens) is needed: several rows to choose from"));
        };
        let Scored { labels, hidden, logits, .. } = scored(g, model, shapes, mode, DType::I32)?;
        let logits = ops::reshape(g, logits, [batch, choices])?;
        let loss = ops::cross_entropy(g, logits, labels, &mode.cross_entropy())?;
        let loss = LossAndStats::over(loss, "labels", choices);
        Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
    }
}

fn three(dims: &[usize]) -> Option<&[usize; 3]> {
    dims.try_into().ok()
}

/// The classes of a model, and what they are compared with.
struct Scored {
    ids: Tensor,
    labels: Tensor,
    hidden: Hidden,
    logits: Tensor,
}

/// The logits of a model's classes, and labels of that type.
fn scored(g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode, of_labels: DType) -> Result<Scored> {
    let encoder = encoder(model)?;
    let inputs = text(g, model, shapes, mode)?;
    let labels = input(g, shapes, "labels", of_labels)?;
    let hidden = encoder.encode(g, &inputs)?;
    let logits = encoder.class_logits(g, hidden.states, &inputs)?;
    Ok(Scored { ids: inputs.ids, labels, hidden, logits })
}

/// The logits of a model's classes, and their cross-entropy with `labels`.
fn classes(g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
    let Scored { labels, hidden, logits, .. } = scored(g, model, shapes, mode, DType::I32)?;
    let loss = ops::cross_entropy(g, logits, labels, &mode.cross_entropy())?;
    let loss = LossAndStats::over(loss, "labels", g.shape(logits).last());
    Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
}
