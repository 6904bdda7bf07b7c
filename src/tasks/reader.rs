//! Encoders that read texts: vectors, classes, words behind masks.

use super::encoder;
use super::rows::{Row, rounded};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::models::{Dimensions, EncoderHead, Model, TokenInputs};
use crate::nn::{self, KvSource};
use crate::ops;
use crate::program::{Program, Weights};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The most positions of a batch, and rows.
const POSITIONS: usize = 4096;
const ROWS: usize = 64;

/// What is read off a text of T tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reads {
    /// The logits of its classes, or T times those of a token's, or T times a beginning's and an end's.
    Classes,
    /// The mean of its tokens' states.
    Mean,
    /// The state of its first token.
    First,
    /// The logits of the vocabulary for one of its tokens.
    Word,
}

/// An encoder on one device with what is read off it. Texts of like length share a batch: there are at most four programs for each doubling
/// of the length, times those for fewer texts.
pub struct Reader {
    gpu: Gpu,
    model: Arc<dyn Model>,
    weights: Weights,
    reads: Reads,
    rows: usize,
    programs: BTreeMap<(usize, usize), Program>,
    /// Tokens so far, and positions of the batches that they were in.
    tokens: u64,
    positions: u64,
}

/// Texts that are being read.
struct Reading {
    /// Their numbers, the longest first.
    order: Vec<usize>,
    /// Those of `order` that have been read.
    first: usize,
    /// What was read of each.
    found: Vec<Vec<f32>>,
}

/// Texts that are read together, in so many rows of so many positions.
struct Batch {
    numbers: Vec<usize>,
    rows: usize,
    time: usize,
}

/// How many rows a batch of `time` positions has for texts of these lengths, the longest first: `most`, unless a half, a quarter, … of it
/// have less padding than a fifth, or as little as there can be. Few texts do not pay for the rows of many.
fn rows_for(lengths: &[usize], time: usize, most: usize) -> usize {
    let most = most.min(lengths.len().next_power_of_two()).max(1);
    let filled = |rows: usize| lengths.iter().take(rows).sum::<usize>() as f64 / (rows * time) as f64;
    let halves = || std::iter::successors(Some(most), |rows| Some(rows / 2)).take_while(|rows| *rows >= most.min(4));
    let fuller = |a: usize, b: usize| if filled(b) > filled(a) { b } else { a };
    halves().find(|rows| filled(*rows) >= 0.8).or_else(|| halves().reduce(fuller)).unwrap_or(most)
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("model", &self.model).field("reads", &self.reads).finish_non_exhaustive()
    }
}

impl Reader {
    /// Makes an encoder ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is no encoder, or has no head for what is to be read.
    pub fn new(gpu: &Gpu, model: Arc<dyn Model>, weights: &Weights, reads: Reads) -> Result<Self> {
        let head = encoder(model.as_ref())?.head_kind();
        let classes = !head.predicts_tokens() && !matches!(head, EncoderHead::None | EncoderHead::NextToken);
        let missing = match reads {
            Reads::Classes if !classes => "it has no classes: train it for them first (wgformer train --task)",
            Reads::Word if !head.predicts_tokens() => "it has no head of a language model",
            _ => "",
        };
        if !missing.is_empty() {
            return Err(Error::input("model", missing));
        }
        let (gpu, weights) = (gpu.clone(), weights.share());
        Ok(Self { gpu, model, weights, reads, rows: ROWS, programs: BTreeMap::new(), tokens: 0, positions: 0 })
    }

    /// The same with at most so many texts in a batch.
    #[must_use]
    pub fn with_rows(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<dyn Model> {
        &self.model
    }

    /// The share of padding in the batches so far.
    #[must_use]
    pub fn padding(&self) -> f64 {
        (self.positions - self.tokens) as f64 / self.positions.max(1) as f64
    }

    /// What [`Reads`] says, for each text, given as its tokens with the special ones that the model was trained with
    /// ([`crate::io::Tokenizer::encode_for_model`]).
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub fn read(&mut self, texts: &[Row]) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<(&Row, usize)> = texts.iter().map(|row| (row, 0)).collect();
        self.read_at(&texts, &mut |_| ())
    }

    /// As [`Reader::read`], with the place of the token that [`Reads::Word`] is about; `done` is told how many texts have been read.
    ///
    /// # Errors
    /// [`Error::Input`] if a text has no tokens, more than the model has positions, or unknown ones; [`Error::OutOfMemory`];
    /// [`Error::DeviceLost`].
    pub fn read_at(&mut self, texts: &[(&Row, usize)], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let mut reading = self.begin(texts)?;
        while let Some(batch) = self.next_batch(texts, &reading) {
            let read =
                pollster::block_on(self.submit(texts, &batch, false)).and_then(|program| program.read_f32("values"));
            if self.accept(texts, &batch, read, &mut reading)? {
                done(reading.first);
            }
        }
        Ok(reading.found)
    }

    /// The async form of [`Reader::read_at`].
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub async fn read_at_async(
        &mut self,
        texts: &[(&Row, usize)],
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f32>>> {
        let mut reading = self.begin(texts)?;
        while let Some(batch) = self.next_batch(texts, &reading) {
            let read = match self.submit(texts, &batch, true).await {
                Ok(program) => program.read_async("values").await.map(|bytes| bytemuck::pod_collect_to_vec(&bytes)),
                Err(error) => Err(error),
            };
            if self.accept(texts, &batch, read, &mut reading)? {
                done(reading.first);
            }
        }
        Ok(reading.found)
    }

    /// Refuses texts that the model cannot read.
    fn begin(&self, texts: &[(&Row, usize)]) -> Result<Reading> {
        let Dimensions { vocabulary, max_position, .. } = self.model.dimensions();
        for (number, (text, _)) in texts.iter().enumerate() {
            let refuse = |message: String| Err(Error::input(format!("text {number}"), message));
            match text.ids.iter().find(|id| **id as usize >= vocabulary) {
                _ if text.ids.is_empty() => return refuse("it has no tokens".into()),
                _ if text.ids.len() > max_position => {
                    return refuse(format!("it has {} tokens; the model reads {max_position}", text.ids.len()));
                }
                Some(id) => return refuse(format!("token {id} is not among the {vocabulary} of the vocabulary")),
                None => (),
            }
        }
        let mut order: Vec<usize> = (0..texts.len()).collect();
        // The longest first: what does not fit the memory is known at once.
        order.sort_by_key(|&number| std::cmp::Reverse(texts[number].0.ids.len()));
        Ok(Reading { order, first: 0, found: vec![Vec::new(); texts.len()] })
    }

    /// The texts that are read next; none when all are.
    fn next_batch(&self, texts: &[(&Row, usize)], reading: &Reading) -> Option<Batch> {
        let left = reading.order.get(reading.first..)?;
        let lengths: Vec<usize> = left.iter().map(|&number| texts[number].0.ids.len()).collect();
        let time = rounded(*lengths.first()?).min(self.model.dimensions().max_position);
        let rows = rows_for(&lengths, time, (POSITIONS / time).clamp(1, self.rows));
        Some(Batch { numbers: left[..rows.min(left.len())].to_vec(), rows, time })
    }

    /// Runs a batch, in an application's frames if so told, else without waiting; the program's output is for [`Reader::accept`].
    async fn submit(&mut self, texts: &[(&Row, usize)], batch: &Batch, in_frames: bool) -> Result<&Program> {
        let &Batch { ref numbers, rows, time } = batch;
        let (mut ids, mut types, mut shares) = (vec![0_u32; rows * time], vec![0_u32; rows * time], Vec::new());
        let (mut lengths, mut places) = (vec![1_u32; rows], vec![0_u32; rows]);
        shares.resize(rows * time, 0.0_f32);
        for (row, &number) in numbers.iter().enumerate() {
            let (text, place) = texts[number];
            let length = text.ids.len();
            ids[row * time..][..length].copy_from_slice(&text.ids);
            let known = text.types.len().min(length);
            types[row * time..][..known].copy_from_slice(&text.types[..known]);
            shares[row * time..][..length].fill(1.0 / length as f32);
            lengths[row] = length as u32;
            places[row] = (row * time + place.min(length - 1)) as u32;
        }
        // Tokens are of the first part where nothing else is said.
        let has_types = types.iter().any(|part| *part > 0);
        let program = self.program(rows, time, has_types)?;
        let feeds: [(&str, &[u8]); 5] = [
            ("ids", bytemuck::cast_slice(&ids)),
            ("lengths", bytemuck::cast_slice(&lengths)),
            ("types", bytemuck::cast_slice(&types)),
            ("shares", bytemuck::cast_slice(&shares)),
            ("places", bytemuck::cast_slice(&places)),
        ];
        for (name, bytes) in feeds.into_iter().filter(|(name, _)| program.has_input(name)) {
            program.write(name, bytes)?;
        }
        program.run_by(&[], in_frames).await?;
        Ok(program)
    }

    /// Takes what was read of a batch. False if there was too little memory for it: then the next one is smaller.
    fn accept(
        &mut self,
        texts: &[(&Row, usize)],
        batch: &Batch,
        read: Result<Vec<f32>>,
        reading: &mut Reading,
    ) -> Result<bool> {
        let &Batch { ref numbers, rows, time } = batch;
        if matches!(read, Err(Error::OutOfMemory { .. })) && rows > 1 {
            self.rows = rows / 2;
            return Ok(false);
        }
        let values = read?;
        let width = values.len() / rows;
        // A row of values a token ends with the text.
        let per_token =
            |length: usize| if width.is_multiple_of(time) && self.by_token() { width / time * length } else { width };
        for (row, &number) in numbers.iter().enumerate() {
            let length = texts[number].0.ids.len();
            reading.found[number] = values[row * width..][..per_token(length)].to_vec();
        }
        reading.first += numbers.len();
        self.tokens += numbers.iter().map(|&number| texts[number].0.ids.len() as u64).sum::<u64>();
        self.positions += (rows * time) as u64;
        Ok(true)
    }

    /// Whether there are values for each token.
    fn by_token(&self) -> bool {
        let head = self.model.encoder().map(crate::models::Encoder::head_kind);
        let tokens = |head| {
            matches!(
                head,
                EncoderHead::TokenClassification { .. } | EncoderHead::QuestionAnswering | EncoderHead::ReplacedTokens
            )
        };
        self.reads == Reads::Classes && head.is_some_and(tokens)
    }

    /// The program for so many texts of up to `time` tokens. Those with parts have one of their own.
    fn program(&mut self, rows: usize, time: usize, has_types: bool) -> Result<&Program> {
        let key = (rows, 2 * time + usize::from(has_types));
        if !self.programs.contains_key(&key) {
            let graph = self.graph(rows, time, has_types)?;
            self.programs.insert(key, Program::new(&self.gpu, &graph, &self.weights)?);
        }
        self.programs.get(&key).ok_or_else(|| Error::Graph("the program of a reader is missing".into()))
    }

    /// Inputs `ids (B, T)`, `lengths (B)`, `types (B, T)`, `shares (B, 1, T)` of each token in the mean, `places (B)` among all tokens; output
    /// `values`.
    fn graph(&self, rows: usize, time: usize, has_types: bool) -> Result<Graph> {
        let d_model = self.model.dimensions().d_model;
        let encoder = encoder(self.model.as_ref())?;
        let mut g = Graph::with_storage(self.weights.storage());
        let ids = g.input("ids", [rows, time], DType::U32)?;
        let lengths = g.input("lengths", [rows], DType::U32)?;
        let kv = KvSource::Packed { lengths: Some(lengths) };
        let mut inputs = TokenInputs { kv, ..TokenInputs::new(&mut g, ids)? };
        if has_types {
            inputs = inputs.with_types(g.input("types", [rows, time], DType::U32)?);
        }
        let states = encoder.encode(&mut g, &inputs)?.states;
        let values = match self.reads {
            Reads::Classes => encoder.class_logits(&mut g, states, &inputs)?,
            Reads::Word => {
                let places = g.input("places", [rows], DType::U32)?;
                let all = ops::reshape(&mut g, states, [rows * time, d_model])?;
                let some = ops::gather_rows(&mut g, all, places)?;
                let some = ops::reshape(&mut g, some, [rows, 1, d_model])?;
                let (states, head) = encoder.mlm_head(&mut g, some)?;
                head.logits(&mut g, states)?
            }
            Reads::Mean => {
                let shares = g.input("shares", [rows, 1, time], DType::F32)?;
                ops::matmul(&mut g, shares, states)?
            }
            Reads::First => nn::first_states(&mut g, states)?,
        };
        g.output("values", values)?;
        Ok(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_as_many_rows_as_lengths_of_texts_allow() {
        assert_eq!(rows_for(&[60; 100], 64, 64), 64);
        assert_eq!(rows_for(&[60; 3], 64, 64), 4);
        assert_eq!(rows_for(&[60], 64, 64), 1);
        let mixed: Vec<usize> = (0..64).map(|i| 64 - i).collect();
        assert_eq!(rows_for(&mixed, 64, 64), 16);
        // Nothing fills this: the best is taken.
        assert_eq!(rows_for(&[[64].as_slice(), &[1; 63]].concat(), 64, 64), 4);
        assert_eq!(rows_for(&[1; 64], 4, 64), 64);
    }
}
