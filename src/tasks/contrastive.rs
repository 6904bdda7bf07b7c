//! Vectors of pairs of texts that belong together.

use super::objective::IGNORED;
use super::{Pooling, Row, Shapes, Task, TaskGraph, TaskMode, encoder, input, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Array, Graph, Tensor};
use crate::models::Model;
use crate::nn;
use crate::ops;
use crate::shape::Shape;

/// What is added to the score of a pair of texts: 0, or [`NO_CANDIDATE`].
pub(super) const CANDIDATES: &str = "candidates";
/// Of a target that is not to be told from a source's own: a missing row, or the same text.
const NO_CANDIDATE: f32 = -1e9;
/// The factor of cosines, the inverse of a temperature of 0.05.
const SCALE: f32 = 20.0;

/// B sources and their B targets as rows of `input_ids (2B, T)`, the sources first, each with a vector `v` of length 1. The loss is the mean
/// over sources of `−log softmax(20 · v_source · v_targetsᵀ + candidates)` at their own targets: the other targets of the batch are what they
/// are told from. `labels (B)` i32 say which target is a source's own; those of missing rows are negative. `candidates (B, B)` f32 is 0, or far
/// below for targets that are left out. Result: `scores (B, B)`.
///
/// van den Oord et al., "Representation learning with contrastive predictive coding", arXiv:1807.03748; Henderson et al., "Efficient natural
/// language response suggestion for smart reply", arXiv:1705.00652.
#[derive(Debug)]
pub(super) struct Contrastive(Pooling);

impl Task for Contrastive {
    fn name(&self) -> &'static str {
        "contrastive"
    }

    fn shapes(&self, _model: &dyn Model, texts: usize, length: usize) -> Vec<(String, Shape)> {
        let shape = |name: &str, dims: &[usize]| (name.to_owned(), Shape::from(dims));
        vec![shape("input_ids", &[2 * texts, length]), shape("labels", &[texts]), shape(CANDIDATES, &[texts, texts])]
    }

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, mode: TaskMode) -> Result<TaskGraph> {
        let inputs = text(g, model, shapes, mode)?;
        let hidden = encoder(model)?.encode(g, &inputs)?;
        let vectors = match self.0 {
            Pooling::Mean => nn::mean_states(g, hidden.states, &inputs)?,
            Pooling::Cls => nn::first_states(g, hidden.states)?,
        };
        let [rows, d_model] = g.shape(vectors).expect("vectors")?;
        if !rows.is_multiple_of(2) {
            return Err(Error::input("input_ids", format!("{rows} rows are no pairs of sources and targets")));
        }
        let vectors = unit_length(g, vectors, d_model)?;
        let pairs = rows / 2;
        let sources = ops::slice(g, vectors, 0, 0, pairs)?;
        let targets = ops::slice(g, vectors, 0, pairs, pairs)?;
        let cosines = ops::matmul_nt(g, sources, targets)?;
        let scores = ops::scale(g, cosines, SCALE)?;
        let candidates = input(g, shapes, CANDIDATES, DType::F32)?;
        let scores = ops::add(g, scores, candidates)?;
        let labels = input(g, shapes, "labels", DType::I32)?;
        let loss = ops::cross_entropy(g, scores, labels, &mode.cross_entropy())?;
        Ok(TaskGraph::new(vec![("scores".into(), scores)], loss.into(), hidden))
    }
}

/// Rows divided by their lengths.
fn unit_length(g: &mut Graph, vectors: Tensor, d_model: usize) -> Result<Tensor> {
    // Over the root of the mean square is over the length, times the root of `d_model`.
    let gain = g.constant("gain", Array::from_fn([d_model], |_| 1.0 / (d_model as f64).sqrt()), DType::F32);
    ops::rms_norm(g, vectors, gain, 1e-12)
}

impl Contrastive {
    /// The task with vectors of that kind.
    pub(super) fn of(pooling: Pooling) -> &'static dyn Task {
        match pooling {
            Pooling::Mean => &Self(Pooling::Mean),
            Pooling::Cls => &Self(Pooling::Cls),
        }
    }
}

/// The targets of the sources of a batch: their own, and none for missing rows.
pub(super) fn own_targets(rows: &[&Row], count: usize) -> Vec<i32> {
    (0..count).map(|place| if place < rows.len() { place as i32 } else { IGNORED }).collect()
}

/// What is added to the score of each source (row) and each target of a batch: targets are left out that are missing, or that belong to the
/// source or to a source of the same tokens beside its own.
pub(super) fn candidates(rows: &[&Row], count: usize) -> Vec<f32> {
    let mut all = vec![0.0; count * count];
    for (at, bias) in all.iter_mut().enumerate() {
        let (source, other) = (at / count, at % count);
        let same = match (rows.get(source), rows.get(other)) {
            (Some(a), Some(b)) => source != other && (a.target == b.target || a.ids == b.ids),
            _ => other >= rows.len(),
        };
        if same {
            *bias = NO_CANDIDATE;
        }
    }
    all
}
