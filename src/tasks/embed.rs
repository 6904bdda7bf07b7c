//! Hidden states, to be used as they are.

use super::{Shapes, Task, TaskGraph, encoder, text};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Array, Graph};
use crate::models::{Dimensions, Model, TokenInputs};
use crate::nn::KvSource;
use crate::ops;
use crate::program::{Program, Weights};
use crate::train::bucket;
use std::collections::BTreeMap;
use std::fmt;
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

    fn graph(&self, g: &mut Graph, model: &dyn Model, shapes: Shapes<'_>, training: bool) -> Result<TaskGraph> {
        let inputs = text(g, model, shapes, training)?;
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

/// An encoder that turns texts into vectors of length 1: the mean of the states of a text's tokens, divided by its length.
///
/// Texts are near in meaning if the product of their vectors, which is the cosine of their angle, is near 1.
pub struct Embedder {
    gpu: Gpu,
    model: Arc<dyn Model>,
    weights: Weights,
    batch: usize,
    programs: BTreeMap<usize, Program>,
    /// Tokens so far, and positions of the batches that they were in.
    tokens: u64,
    positions: u64,
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedder").field("model", &self.model).field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl Embedder {
    /// Makes an encoder ready for `batch` texts at a time.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is no encoder, or the batch is 0.
    pub fn new(gpu: &Gpu, model: Arc<dyn Model>, weights: &Weights, batch: usize) -> Result<Self> {
        encoder(model.as_ref())?;
        if batch == 0 {
            return Err(Error::input("batch", "0 is given; at least 1 is needed"));
        }
        Ok(Self {
            gpu: gpu.clone(),
            model,
            weights: weights.share(),
            batch,
            programs: BTreeMap::new(),
            tokens: 0,
            positions: 0,
        })
    }

    /// The vectors of texts, given as their tokens with the special ones that the model was trained with
    /// ([`crate::io::Tokenizer::encode_for_model`]). Texts of like length share a batch, which is as long as [`bucket`] says: there are at
    /// most four programs for each doubling of the length.
    ///
    /// # Errors
    /// [`Error::Input`] if a text has no tokens, more than the model has positions, or unknown ones; [`Error::OutOfMemory`];
    /// [`Error::DeviceLost`].
    pub fn embed(&mut self, texts: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let Dimensions { vocabulary, max_position, d_model, .. } = self.model.dimensions();
        for (number, text) in texts.iter().enumerate() {
            let refuse = |message: String| Err(Error::input(format!("text {number}"), message));
            match text.iter().find(|id| **id as usize >= vocabulary) {
                _ if text.is_empty() => return refuse("it has no tokens".into()),
                _ if text.len() > max_position => {
                    return refuse(format!("it has {} tokens; the model reads {max_position}", text.len()));
                }
                Some(id) => return refuse(format!("token {id} is not among the {vocabulary} of the vocabulary")),
                None => (),
            }
        }
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&number| texts[number].len());
        for numbers in order.chunks(self.batch) {
            let chunk: Vec<&Vec<u32>> = numbers.iter().map(|&number| &texts[number]).collect();
            let longest = chunk.iter().map(|text| text.len()).max().unwrap_or(1);
            let (batch, time) = (self.batch, bucket(longest).min(max_position));
            self.tokens += chunk.iter().map(|text| text.len() as u64).sum::<u64>();
            self.positions += (batch * time) as u64;
            let (mut ids, mut shares) = (vec![0_u32; batch * time], vec![0.0_f32; batch * time]);
            let mut lengths = vec![1_u32; batch];
            for (row, text) in chunk.iter().enumerate() {
                ids[row * time..][..text.len()].copy_from_slice(text);
                shares[row * time..][..text.len()].fill(1.0 / text.len() as f32);
                lengths[row] = text.len() as u32;
            }
            let program = self.program(time)?;
            program.write("ids", bytemuck::cast_slice(&ids))?;
            program.write("lengths", bytemuck::cast_slice(&lengths))?;
            program.write("shares", bytemuck::cast_slice(&shares))?;
            program.run()?;
            let found = program.read_f32("vectors")?;
            for (&number, vector) in numbers.iter().zip(found.chunks_exact(d_model)) {
                vectors[number] = vector.to_vec();
            }
        }
        Ok(vectors)
    }

    /// The share of padding in the batches so far.
    #[must_use]
    pub fn padding(&self) -> f64 {
        (self.positions - self.tokens) as f64 / self.positions.max(1) as f64
    }

    /// The program for texts of up to `time` tokens.
    fn program(&mut self, time: usize) -> Result<&Program> {
        if !self.programs.contains_key(&time) {
            let graph = self.graph(time)?;
            self.programs.insert(time, Program::new(&self.gpu, &graph, &self.weights)?);
        }
        self.programs.get(&time).ok_or_else(|| Error::Graph("the program of an embedder is missing".into()))
    }

    /// Inputs `ids (B, T)`, `lengths (B)` and `shares (B, T)`, of each token in the mean; output `vectors (B, 1, C)`.
    fn graph(&self, time: usize) -> Result<Graph> {
        let (batch, d_model) = (self.batch, self.model.dimensions().d_model);
        let mut g = Graph::with_storage(self.weights.storage());
        let ids = g.input("ids", [batch, time], DType::U32)?;
        let lengths = g.input("lengths", [batch], DType::U32)?;
        let shares = g.input("shares", [batch, 1, time], DType::F32)?;
        let kv = KvSource::Packed { lengths: Some(lengths) };
        let inputs = TokenInputs { kv, ..TokenInputs::new(&mut g, ids)? };
        let states = encoder(self.model.as_ref())?.encode(&mut g, &inputs)?.states;
        let mean = ops::matmul(&mut g, shares, states)?;
        // Over the root of the mean square is over the length, times the root of `d_model`.
        let gain = g.constant("gain", Array::from_fn([d_model], |_| 1.0 / (d_model as f64).sqrt()), DType::F32);
        let vectors = ops::rms_norm(&mut g, mean, gain, f32::MIN_POSITIVE)?;
        g.output("vectors", vectors)?;
        Ok(g)
    }
}
