//! How likely texts are.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::io::Tokenizer;
use crate::models::{Model, TokenInputs};
use crate::ops::{self, CrossEntropyOptions};
use crate::program::{Program, Weights};
use crate::train::{bucket, check_tokens};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Rows of a batch. Each has a head of its own, so that no logits of all rows are in memory.
const ROWS: usize = 8;
/// The label of tokens that do not count.
const IGNORED: i32 = -100;

/// How likely a text is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scored {
    /// The sum of −ln p over its tokens.
    pub sum: f64,
    /// How many tokens these are.
    pub tokens: usize,
}

impl Scored {
    /// The mean of −ln p, if a token was predicted.
    #[must_use]
    pub fn mean(self) -> Option<f64> {
        (self.tokens > 0).then(|| self.sum / self.tokens as f64)
    }

    /// The exponential of the mean.
    #[must_use]
    pub fn perplexity(self) -> Option<f64> {
        self.mean().map(f64::exp)
    }
}

/// A decoder and its tokenizer.
///
/// A text's tokens are predicted each from those in front of it; the first is not, unless the tokenizer puts one in front. A text longer than
/// `longest` tokens is cut into pieces, of which each begins anew with its predecessor's last token.
pub struct Scorer {
    gpu: Gpu,
    model: Arc<dyn Model>,
    weights: Weights,
    tokenizer: Tokenizer,
    longest: usize,
    programs: BTreeMap<usize, Program>,
}

impl fmt::Debug for Scorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scorer").field("model", &self.model).field("longest", &self.longest).finish_non_exhaustive()
    }
}

impl Scorer {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model does not continue texts.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<Self> {
        if model.decoder().is_none() || model.encoder().is_some() {
            return Err(Error::input("model", "it does not continue texts, so that it says of none how likely it is"));
        }
        let longest = longest.min(model.dimensions().max_position).max(2);
        let (gpu, weights, tokenizer) = (gpu.clone(), weights.share(), tokenizer.clone());
        Ok(Self { gpu, model, weights, tokenizer, longest, programs: BTreeMap::new() })
    }

    /// How likely texts are; `done` is told how many were read.
    ///
    /// # Errors
    /// Those of the tokenizer; [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn score(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Scored>> {
        let mut pieces: Vec<(usize, Vec<u32>)> = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let ids = self.tokenizer.encode_prompt(text)?;
            check_tokens(&ids, self.model.dimensions().vocabulary)?;
            let mut first = 0;
            while first + 1 < ids.len() {
                let end = (first + self.longest).min(ids.len());
                pieces.extend(ids.get(first..end).map(|piece| (number, piece.to_vec())));
                first = end - 1;
            }
        }
        pieces.sort_by_key(|(_, piece)| std::cmp::Reverse(piece.len()));
        let mut scores = vec![Scored::default(); texts.len()];
        let mut read = 0;
        for chunk in pieces.chunks(ROWS) {
            let time = bucket(chunk[0].1.len()).min(self.model.dimensions().max_position);
            let (mut ids, mut labels) = (vec![0_u32; ROWS * time], vec![IGNORED; ROWS * time]);
            for (row, (_, piece)) in chunk.iter().enumerate() {
                ids[row * time..][..piece.len()].copy_from_slice(piece);
                let next = piece.iter().skip(1).map(|id| *id as i32);
                labels[row * time..].iter_mut().zip(next).for_each(|(label, next)| *label = next);
            }
            let program = self.program(time)?;
            program.write("ids", bytemuck::cast_slice(&ids))?;
            program.write("labels", bytemuck::cast_slice(&labels))?;
            program.run()?;
            let losses = program.read_f32("losses")?;
            for ((number, piece), loss) in chunk.iter().zip(losses) {
                let tokens = piece.len() - 1;
                scores[*number].sum += f64::from(loss) * tokens as f64;
                scores[*number].tokens += tokens;
            }
            read += chunk.len();
            done(read * texts.len() / pieces.len().max(1));
        }
        if let Some(number) = scores.iter().position(|score| !score.sum.is_finite()) {
            let message = "it is not finite: the weights are damaged, or too large for their storage type (--dtype)";
            return Err(Error::NonFinite { what: format!("the loss of text {number}"), message: message.into() });
        }
        Ok(scores)
    }

    /// Inputs `ids (B, T)` and `labels (B, T)`; output `losses (B)`, the mean of each row.
    fn program(&mut self, time: usize) -> Result<&Program> {
        if !self.programs.contains_key(&time) {
            let missing = || Error::input("model", "it does not continue texts");
            let decoder = self.model.decoder().ok_or_else(missing)?;
            let mut g = Graph::with_storage(self.weights.storage());
            let ids = g.input("ids", [ROWS, time], DType::U32)?;
            let labels = g.input("labels", [ROWS, time], DType::I32)?;
            let inputs = TokenInputs::new(&mut g, ids)?;
            let states = decoder.decode(&mut g, &inputs)?.states;
            let head = decoder.lm_head(&mut g)?;
            let mut losses = Vec::new();
            for row in 0..ROWS {
                let states = ops::slice(&mut g, states, 0, row, 1)?;
                let labels = ops::slice(&mut g, labels, 0, row, 1)?;
                let loss = head.loss(&mut g, states, labels, &CrossEntropyOptions::default())?;
                losses.push(ops::reshape(&mut g, loss, [1])?);
            }
            let losses = ops::concat(&mut g, &losses, 0)?;
            g.output("losses", losses)?;
            self.programs.insert(time, Program::new(&self.gpu, &g, &self.weights)?);
        }
        self.programs.get(&time).ok_or_else(|| Error::Graph("the program of a scorer is missing".into()))
    }
}
