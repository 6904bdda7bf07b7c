//! One pass over a batch of tokens: logits, states, the loss.

use crate::session::Session;
use std::collections::BTreeMap;
use wgformer::models::{EncoderHead, Model, TokenInputs};
use wgformer::ops::CrossEntropyOptions;
use wgformer::{DType, Error, Graph, Program, Result, Tensor, Weights};

/// The most programs that are kept, each for a shape.
const PROGRAMS: usize = 8;
/// A label that does not count.
const IGNORED: i32 = -100;

/// A batch of tokens, row by row.
#[derive(Clone, Copy, Debug)]
pub struct TokenBatch<'a> {
    /// Token ids, (rows, length).
    pub ids: &'a [u32],
    /// 0 on padding, else 1, (rows, length); none: there is no padding.
    pub mask: Option<&'a [u32]>,
    /// The part that each token belongs to, (rows, length), for encoders; none: all are of the first.
    pub types: Option<&'a [u32]>,
    /// Rows.
    pub rows: usize,
    /// Tokens of a row.
    pub length: usize,
}

/// What a pass gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// `logits` or `last_hidden_state`.
    pub name: &'static str,
    /// Row-major.
    pub values: Vec<f32>,
    /// The shape of the values.
    pub shape: Vec<usize>,
}

/// What a program is for: rows, length, a mask, types, the loss.
type Key = (usize, usize, bool, bool, bool);

/// Programs by shape.
#[derive(Default)]
pub(crate) struct Programs(BTreeMap<Key, Prepared>);

struct Prepared {
    program: Program,
    name: &'static str,
    shape: Vec<usize>,
}

impl TokenBatch<'_> {
    pub(crate) fn check(&self, model: &dyn Model) -> Result<()> {
        let (positions, vocabulary) = (model.dimensions().max_position, model.dimensions().vocabulary);
        let count = self.rows.checked_mul(self.length).filter(|count| *count > 0);
        let wrong = |what: &str, got: usize| {
            let message = format!("it has {got} numbers, but {} rows of {} are needed", self.rows, self.length);
            Err(Error::input(what, message))
        };
        if count != Some(self.ids.len()) {
            return wrong("ids", self.ids.len());
        }
        for (what, values) in [("mask", self.mask), ("types", self.types)] {
            if let Some(values) = values.filter(|values| values.len() != self.ids.len()) {
                return wrong(what, values.len());
            }
        }
        if self.length > positions {
            let message = format!("its rows have {} tokens, but the model has {positions} positions", self.length);
            return Err(Error::input("ids", message));
        }
        match self.ids.iter().position(|id| *id as usize >= vocabulary) {
            Some(at) => {
                let message = format!("number {at} is {}, but the vocabulary has {vocabulary} tokens", self.ids[at]);
                Err(Error::input("ids", message))
            }
            None => Ok(()),
        }
    }
}

/// Labels as transformers has them, `labels[t]` of the token at t, moved to the token in front, which predicts it. None: the tokens themselves.
pub(crate) fn next_labels(batch: TokenBatch<'_>, labels: Option<&[i32]>) -> Result<Vec<i32>> {
    let own = || batch.ids.iter().map(|id| i32::try_from(*id).unwrap_or(IGNORED)).collect();
    let labels: Vec<i32> = labels.map_or_else(own, <[i32]>::to_vec);
    if labels.len() != batch.ids.len() {
        let message = format!("there are {}, but {} tokens", labels.len(), batch.ids.len());
        return Err(Error::input("labels", message));
    }
    let rows = labels.chunks_exact(batch.length.max(1));
    Ok(rows.flat_map(|row| row.iter().skip(1).copied().chain([IGNORED])).collect())
}

impl Session {
    /// The logits of a decoder or of an encoder's head, or the states of an encoder without one.
    ///
    /// # Errors
    /// [`Error::Input`] if the batch does not fit the model, or an encoder feeds a decoder; [`Error::OutOfMemory`]; [`Error::DeviceLost`].
    pub fn forward(&mut self, batch: TokenBatch<'_>) -> Result<Forward> {
        let prepared = self.prepared(batch, false)?;
        prepared.write(batch)?;
        prepared.program.run()?;
        let values = prepared.program.read_f32(prepared.name)?;
        Ok(Forward { name: prepared.name, values, shape: prepared.shape.clone() })
    }

    /// The mean cross-entropy of a decoder's logits against labels as transformers has them: `labels[t]` is the token at t, predicted by those in
    /// front, and negative ones do not count. Without labels the tokens themselves.
    ///
    /// # Errors
    /// As [`Session::forward`].
    pub fn loss(&mut self, batch: TokenBatch<'_>, labels: Option<&[i32]>) -> Result<f32> {
        self.expect_decoder()?;
        let prepared = self.prepared(batch, true)?;
        let labels = next_labels(batch, labels)?;
        if labels.iter().all(|label| *label < 0) {
            return Err(Error::input(
                "labels",
                "none counts: a row needs two tokens, and a label that is not negative",
            ));
        }
        prepared.write(batch)?;
        prepared.program.write("labels", &bytes(labels))?;
        prepared.program.run()?;
        let values = prepared.program.read_f32(prepared.name)?;
        values.first().copied().ok_or_else(|| Error::Graph("the loss is missing".into()))
    }

    fn prepared(&mut self, batch: TokenBatch<'_>, loss: bool) -> Result<&Prepared> {
        batch.check(self.model.as_ref())?;
        let key = (batch.rows, batch.length, batch.mask.is_some(), batch.types.is_some(), loss);
        let programs = &mut self.programs.0;
        if !programs.contains_key(&key) && programs.len() >= PROGRAMS {
            programs.clear();
        }
        match programs.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let mut g = Graph::with_storage(self.weights.storage());
                let (name, output) = graph(&mut g, self.model.as_ref(), batch, loss)?;
                g.output(name, output)?;
                let shape = g.shape(output).dims().to_vec();
                // States of training stay its own.
                let weights: Weights = self.weights.share();
                Ok(entry.insert(Prepared { program: Program::new(&self.gpu, &g, &weights)?, name, shape }))
            }
        }
    }
}

impl Prepared {
    fn write(&self, batch: TokenBatch<'_>) -> Result<()> {
        let inputs = [("ids", Some(batch.ids)), ("mask", batch.mask), ("types", batch.types)];
        for (name, values) in inputs {
            if let Some(values) = values.filter(|_| self.program.has_input(name)) {
                self.program.write(name, &bytes(values.iter().copied()))?;
            }
        }
        Ok(())
    }
}

fn graph(g: &mut Graph, model: &dyn Model, batch: TokenBatch<'_>, loss: bool) -> Result<(&'static str, Tensor)> {
    let shape = [batch.rows, batch.length];
    let ids = g.input("ids", shape, DType::U32)?;
    let mut inputs = TokenInputs::new(g, ids)?;
    if batch.mask.is_some() {
        inputs = inputs.with_mask(g.input("mask", shape, DType::U32)?);
    }
    if batch.types.is_some() {
        inputs = inputs.with_types(g.input("types", shape, DType::U32)?);
    }
    match (model.encoder(), model.decoder()) {
        (Some(_), Some(_)) => {
            Err(Error::input("model", "its encoder feeds a decoder: it generates, and gives no logits here"))
        }
        (_, Some(decoder)) => {
            let states = decoder.decode(g, &inputs)?.states;
            if loss {
                let labels = g.input("labels", shape, DType::I32)?;
                let options = CrossEntropyOptions::default();
                return Ok(("loss", decoder.loss_of(g, states, labels, &options)?));
            }
            Ok(("logits", decoder.logits(g, states)?))
        }
        (Some(encoder), None) => {
            let states = encoder.encode(g, &inputs)?.states;
            match encoder.head_kind() {
                EncoderHead::None => Ok(("last_hidden_state", states)),
                head if head.predicts_tokens() => {
                    let (states, head) = encoder.mlm_head(g, states)?;
                    Ok(("logits", head.logits(g, states)?))
                }
                _ => Ok(("logits", encoder.class_logits(g, states, &inputs)?)),
            }
        }
        (None, None) => Err(Error::input("model", "it has neither an encoder nor a decoder")),
    }
}

/// The bytes of GPU memory.
pub(crate) fn bytes<T: Word>(values: impl IntoIterator<Item = T>) -> Vec<u8> {
    values.into_iter().flat_map(Word::bytes).collect()
}

pub(crate) trait Word {
    fn bytes(self) -> [u8; 4];
}

impl Word for u32 {
    fn bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
}

impl Word for i32 {
    fn bytes(self) -> [u8; 4] {
        self.to_le_bytes()
    }
}
