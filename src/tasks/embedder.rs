//! Vectors of texts.

use super::embed::to_unit_length;
use super::embed_settings::EmbedSettings;
use super::windows::{Window, row, truncated, windows};
use super::{Reader, Row, Target};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Encoding, Tokenizer};
use crate::models::Model;
use crate::program::Weights;
#[cfg(feature = "files")]
use crate::tasks::data::PairExample;
use std::sync::Arc;

/// An encoder with its tokenizer that turns texts into vectors, near each other for texts of like meaning (Reimers and Gurevych,
/// arXiv:1908.10084).
///
/// Texts that are longer than a model reads lose their ends, or are read in windows that share an eighth of their tokens; a text's vector is then
/// the mean of those of its windows, each with the weight of its tokens.
#[derive(Debug)]
pub struct TextEmbedder {
    reader: Reader,
    tokenizer: Tokenizer,
    settings: EmbedSettings,
    longest: usize,
    in_windows: bool,
}

impl TextEmbedder {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model is no encoder.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        settings: EmbedSettings,
    ) -> Result<Self> {
        let longest = settings.longest.unwrap_or(usize::MAX).min(model.dimensions().max_position);
        let reader = Reader::new(gpu, model, weights, settings.pooling.reads())?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), settings, longest, in_windows: false })
    }

    /// The same, with long texts read in windows.
    #[must_use]
    pub fn in_windows(self, in_windows: bool) -> Self {
        Self { in_windows, ..self }
    }

    /// How texts become vectors.
    #[must_use]
    pub fn settings(&self) -> &EmbedSettings {
        &self.settings
    }

    /// The most tokens of a text that are read at a time, special ones included.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.reader.model().dimensions().d_model
    }

    /// The vectors of texts behind the settings' prefix; `done` is told how many rows of tokens have been read.
    ///
    /// # Errors
    /// [`Error::Input`] if a text has no tokens, or the prefix leaves no room for any; [`Error::NonFinite`] for damaged weights; those of the
    /// tokenizer and of [`Reader::read_at`].
    pub fn embed(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let prefix = self.settings.prefix.clone();
        self.embed_behind(&prefix, texts, done)
    }

    /// As [`TextEmbedder::embed`], behind another prefix.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub fn embed_behind(&mut self, prefix: &str, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let (rows, ends) = self.rows_of(prefix, texts)?;
        let read: Vec<(&Row, usize)> = rows.iter().map(|(row, _)| (row, 0)).collect();
        let states = self.reader.read_at(&read, done)?;
        self.vectors(texts, &rows, &states, &ends)
    }

    /// The async form of [`TextEmbedder::embed`].
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    pub async fn embed_async(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let prefix = self.settings.prefix.clone();
        let (rows, ends) = self.rows_of(&prefix, texts)?;
        let read: Vec<(&Row, usize)> = rows.iter().map(|(row, _)| (row, 0)).collect();
        let states = self.reader.read_at_async(&read, done).await?;
        self.vectors(texts, &rows, &states, &ends)
    }

    /// The rows of all texts, with their weights, and where those of each text end.
    fn rows_of(&self, prefix: &str, texts: &[&str]) -> Result<(Vec<(Row, f64)>, Vec<usize>)> {
        let mut rows = Vec::with_capacity(texts.len());
        let mut ends = Vec::with_capacity(texts.len());
        for text in texts {
            rows.extend(self.rows(prefix, text)?);
            ends.push(rows.len());
        }
        Ok((rows, ends))
    }

    /// The vectors of texts by the states of their rows.
    fn vectors(
        &self,
        texts: &[&str],
        rows: &[(Row, f64)],
        states: &[Vec<f32>],
        ends: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        let mut first = 0;
        let mut vectors = Vec::with_capacity(texts.len());
        for &end in ends {
            let parts = rows.iter().zip(states).take(end).skip(first);
            first = end;
            let all: f64 = parts.clone().map(|((_, weight), _)| weight).sum();
            let mut sums = vec![0.0; self.dimensions()];
            for ((_, weight), state) in parts {
                sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += weight / all * f64::from(*x));
            }
            let mut vector: Vec<f32> = sums.into_iter().map(|x| x as f32).collect();
            if self.settings.unit_length {
                to_unit_length(&mut vector);
            }
            if vector.iter().any(|x| !x.is_finite()) {
                let message = "the weights are damaged, or too large for their storage type".into();
                return Err(Error::NonFinite { what: "the vector of a text".into(), message });
            }
            vectors.push(vector);
        }
        Ok(vectors)
    }

    /// The row of a pair of texts that belong together, to learn from.
    ///
    /// # Errors
    /// [`Error::Input`] if the target is missing; as [`TextEmbedder::embed`].
    #[cfg(feature = "files")]
    pub fn pair_row(&self, pair: &PairExample) -> Result<Row> {
        let missing = || Error::input("target", "is missing: a pair of texts is needed");
        let target = pair.target.as_deref().ok_or_else(missing)?;
        let ids = |text: &str| {
            let (encoding, _) = self.encoding(&self.settings.prefix, text)?;
            Ok(truncated(&encoding, self.longest).ids)
        };
        let target = Target::Near { ids: ids(target)?, pooling: self.settings.pooling };
        Ok(Row { ids: ids(&pair.source)?, types: Vec::new(), target })
    }

    /// The parts of a text, as bytes, that are read at a time behind a prefix and share nothing: one of a text that is not too long.
    ///
    /// # Errors
    /// As [`TextEmbedder::embed`].
    #[cfg(feature = "files")]
    pub(super) fn parts(&self, prefix: &str, text: &str) -> Result<Vec<std::ops::Range<usize>>> {
        let (encoding, front) = self.encoding(prefix, text)?;
        if encoding.ids.len() <= self.longest {
            return Ok(std::iter::once(0..text.len()).collect());
        }
        let mut ends: Vec<usize> = Vec::new();
        for window in windows(&encoding, 0, self.longest, 0)? {
            let last = window.tokens.offsets.get(window.inside.end.saturating_sub(1));
            let mut end = last.map_or(0, |last| last.1.saturating_sub(front)).min(text.len());
            // Tokens of bytes may end within a character.
            while !text.is_char_boundary(end) {
                end += 1;
            }
            ends.push(end);
        }
        if let Some(last) = ends.last_mut() {
            *last = text.len();
        }
        let mut begin = 0;
        let part = |end: usize| (end > begin).then(|| std::mem::replace(&mut begin, end)..end);
        Ok(ends.into_iter().filter_map(part).collect())
    }

    /// The tokens of a text behind a prefix, whose tokens count as another text, and the bytes of the prefix.
    fn encoding(&self, prefix: &str, text: &str) -> Result<(Encoding, usize)> {
        let whole = format!("{prefix}{text}");
        let whole = if self.settings.lower_case { whole.to_lowercase() } else { whole };
        let front = if self.settings.lower_case { prefix.to_lowercase().len() } else { prefix.len() };
        let mut encoding = self.tokenizer.encode_for_model(&whole, None)?;
        if encoding.ids.is_empty() {
            return Err(Error::input("text", "one has no tokens: leave empty texts out"));
        }
        for (sequence, (_, end)) in encoding.sequences.iter_mut().zip(&encoding.offsets) {
            if sequence.is_some() && *end <= front {
                *sequence = Some(1);
            }
        }
        let others = encoding.sequences.iter().filter(|sequence| **sequence != Some(0)).count();
        if encoding.ids.len() > self.longest && others >= self.longest {
            let message = format!(
                "it has {others} tokens with the special ones, and {} are read at a time: shorten it, or give a longer context (--context)",
                self.longest
            );
            return Err(Error::input("prefix", message));
        }
        Ok((encoding, front))
    }

    /// The rows of a text with their weights.
    fn rows(&self, prefix: &str, text: &str) -> Result<Vec<(Row, f64)>> {
        let (encoding, _) = self.encoding(prefix, text)?;
        if !self.in_windows || encoding.ids.len() <= self.longest {
            return Ok(vec![(row(truncated(&encoding, self.longest), false, Target::None), 1.0)]);
        }
        let windows = windows(&encoding, 0, self.longest, self.longest / 8)?;
        let row = |window: Window| {
            let weight = window.inside.len() as f64;
            (row(window.tokens, false, Target::None), weight)
        };
        Ok(windows.into_iter().map(row).collect())
    }
}
