//! Words behind masks.

use super::{row, softmax};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::Tokenizer;
use crate::models::Model;
use crate::program::Weights;
use crate::tasks::windows::truncated;
use crate::tasks::{Reader, Reads, Row, Target};
use std::sync::Arc;

/// What may stand behind a mask.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Filled {
    /// The token.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// Its probability.
    pub score: f64,
}

/// A masked language model and its tokenizer.
#[derive(Debug)]
pub struct Filler {
    reader: Reader,
    tokenizer: Tokenizer,
    mask: u32,
}

impl Filler {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no head of a language model, or no token that stands for a mask.
    pub fn new(gpu: &Gpu, model: Arc<dyn Model>, weights: &Weights, tokenizer: &Tokenizer) -> Result<Self> {
        let own = model.config()["mask_token_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let mask = tokenizer.special("mask").or(own);
        let missing = || Error::input("tokenizer", "it has no token that stands for a mask ([MASK] or <mask>)");
        let reader = Reader::new(gpu, model, weights, Reads::Word)?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), mask: mask.ok_or_else(missing)? })
    }

    /// How a mask is written in a text.
    #[must_use]
    pub fn mask(&self) -> String {
        self.tokenizer.token(self.mask).unwrap_or_else(|| "[MASK]".to_owned())
    }

    /// The `most` most probable tokens behind each mask of texts.
    ///
    /// # Errors
    /// [`Error::Input`] if a text has no mask within what the model reads; those of the tokenizer and of [`Reader::read_at`].
    pub fn fill(&mut self, texts: &[&str], most: usize, done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<Vec<Filled>>>> {
        let longest = self.reader.model().dimensions().max_position;
        let mut rows = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let row = row(truncated(&self.encoded(text)?, longest), false, Target::None);
            if !row.ids.contains(&self.mask) {
                let mask = self.mask();
                let message =
                    format!("it has no mask among its first {longest} tokens: write {mask} where a word is wanted");
                return Err(Error::input(format!("text {number}"), message));
            }
            rows.push(row);
        }
        let mut places: Vec<(&Row, usize)> = Vec::new();
        let mut counts = Vec::new();
        for row in &rows {
            let masks: Vec<usize> = (0..row.ids.len()).filter(|&at| row.ids[at] == self.mask).collect();
            counts.push(masks.len());
            places.extend(masks.into_iter().map(|at| (row, at)));
        }
        let logits = self.reader.read_at(&places, done)?;
        let mut filled = logits.iter().map(|logits| self.filled(logits, most));
        counts.into_iter().map(|count| filled.by_ref().take(count).collect()).collect()
    }

    /// A model of this project has a mask that its tokenizer does not know: it is written [MASK].
    fn encoded(&self, text: &str) -> Result<crate::io::Encoding> {
        if self.tokenizer.token(self.mask).is_some() {
            return self.tokenizer.encode_for_model(text, None);
        }
        let mut all = crate::io::Encoding::default();
        for (number, part) in text.split("[MASK]").enumerate() {
            if number > 0 {
                all.ids.push(self.mask);
            }
            all.ids.extend(self.tokenizer.encode(part)?);
        }
        let count = all.ids.len();
        all.sequences = vec![Some(0); count];
        all.type_ids = vec![0; count];
        Ok(all)
    }

    fn filled(&self, logits: &[f32], most: usize) -> Result<Vec<Filled>> {
        let shares = softmax(logits);
        let mut order: Vec<u32> = (0..shares.len() as u32).collect();
        order.sort_by(|a, b| shares[*b as usize].total_cmp(&shares[*a as usize]).then(a.cmp(b)));
        let of = |token: u32| {
            let text = self.tokenizer.decode_with(&[token], false)?;
            Ok(Filled { token, text, score: shares[token as usize] })
        };
        order.into_iter().take(most).map(of).collect()
    }
}
