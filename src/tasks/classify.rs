//! Classes: of rows, of tokens, and which of several rows fits.

use super::{Shapes, Task, TaskGraph, encoder, input, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::models::Model;
use crate::ops::{self, CrossEntropyOptions};
use crate::shape::Shape;
use crate::train::LossAndStats;

/// A class of each row: `logits (B, labels)`, `labels (B)`.
#[derive(Debug)]
pub(super) struct SequenceClassification;

impl Task for SequenceClassification {
    fn name(&self) -> &'static str {
        "sequence-classification"
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        classes(g, model, shapes, training)
    }
}

/// A class of each token: `logits (B, T, labels)`, `labels (B, T)`.
#[derive(Debug)]
pub(super) struct TokenClassification;

impl Task for TokenClassification {
    fn name(&self) -> &'static str {
        "token-classification"
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        classes(g, model, shapes, training)
    }
}

/// What the labels of [`NextSentence`] were called before.
const OLDER: &str = "next_sentence_label";

/// Whether the second part of a text follows the first (class 0) or not (1): `logits (B, 2)`, `labels (B)`.
#[derive(Debug)]
pub(super) struct NextSentence;

impl Task for NextSentence {
    fn name(&self) -> &'static str {
        "next-sentence"
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        let shapes = |name: &str| shapes(name).or_else(|| shapes(OLDER).filter(|_| name == "labels"));
        classes(g, model, &shapes, training)
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

/// Which of several rows fits: `input_ids (B, choices, T)`, `logits (B, choices)`, `labels (B)`.
#[derive(Debug)]
pub(super) struct MultipleChoice;

impl Task for MultipleChoice {
    fn name(&self) -> &'static str {
        "multiple-choice"
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        let Some(&[batch, choices, _]) = shapes("input_ids").as_ref().map(Shape::dims).and_then(three) else {
            return Err(Error::input("input_ids", "(batch, choices, tokens) is needed: several rows to choose from"));
        };
        let encoder = encoder(model)?;
        let inputs = text(g, model, shapes, training)?;
        let labels = input(g, shapes, "labels", DType::I32)?;
        let hidden = encoder.encode(g, &inputs)?;
        let logits = encoder.class_logits(g, hidden.states, &inputs)?;
        let logits = ops::reshape(g, logits, [batch, choices])?;
        let loss = ops::cross_entropy(g, logits, labels, &CrossEntropyOptions::default())?;
        let loss = LossAndStats::over(loss, "labels", choices);
        Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
    }
}

fn three(dims: &[usize]) -> Option<&[usize; 3]> {
    dims.try_into().ok()
}

/// The logits of a model's classes, and their cross-entropy with `labels`.
fn classes(g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
    let encoder = encoder(model)?;
    let inputs = text(g, model, shapes, training)?;
    let labels = input(g, shapes, "labels", DType::I32)?;
    let hidden = encoder.encode(g, &inputs)?;
    let logits = encoder.class_logits(g, hidden.states, &inputs)?;
    let loss = ops::cross_entropy(g, logits, labels, &CrossEntropyOptions::default())?;
    let loss = LossAndStats::over(loss, "labels", g.shape(logits).last());
    Ok(TaskGraph::new(vec![("logits".into(), logits)], loss, hidden))
}
