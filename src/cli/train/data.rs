//! The data of a training run: a text cut into windows, or texts packed into rows.

use crate::cli::args::{TrainArgs, Unit};
use crate::cli::read_texts;
use crate::error::{Error, Result};
use crate::io::Tokenizer;
use crate::models::Model;
use crate::tasks::{
    PackedTexts, PaddedTexts, TaskObjective, TextBatches, TextTask, batch_lengths, held_out_for, packed_held_out,
    padded_held_out,
};
use crate::train::{BatchSource, Batches, Corpus, DataState, HeldOut, check_tokens, in_order};
use std::sync::Arc;

/// The share of the text that is held out.
const HELD_OUT: f64 = 0.1;
/// The most sizes of batches of texts that have a row each.
const SIZES: usize = 6;

/// The text of a run, and where its texts end.
pub(super) struct Text {
    pub(super) all: String,
    /// The end of each file.
    ends: Vec<usize>,
}

impl Text {
    pub(super) fn read(options: &TrainArgs) -> Result<Self> {
        let (mut all, mut ends) = (String::new(), Vec::new());
        if options.pack.or(options.bucket) != Some(Unit::Files) {
            return Ok(Self { all: read_texts(&options.data)?, ends });
        }
        for file in &options.data {
            let more = read_texts(std::slice::from_ref(file))?;
            all.try_reserve(more.len())
                .map_err(|_| Error::format(file, "the text does not fit the memory: split it"))?;
            all.push_str(&more);
            ends.push(all.len());
        }
        Ok(Self { all, ends })
    }

    /// The texts of their own, without empty ones.
    fn parts(&self, unit: Unit) -> Vec<String> {
        let parts: Vec<String> = match unit {
            Unit::Lines => self.all.lines().map(str::to_owned).collect(),
            Unit::Paragraphs => {
                let mut parts = vec![String::new()];
                for line in self.all.lines() {
                    match parts.last_mut() {
                        Some(part) if line.trim().is_empty() && !part.is_empty() => parts.push(String::new()),
                        Some(part) if !line.trim().is_empty() => {
                            part.push_str(if part.is_empty() { "" } else { "\n" });
                            part.push_str(line);
                        }
                        _ => (),
                    }
                }
                parts
            }
            Unit::Files => {
                let starts = std::iter::once(0).chain(self.ends.iter().copied());
                starts.zip(&self.ends).filter_map(|(start, &end)| self.all.get(start..end)).map(str::to_owned).collect()
            }
        };
        parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
    }
}

/// The tokens of a run.
pub(super) enum Data {
    /// One text.
    Whole(Corpus),
    /// Texts to train on, and to evaluate on, several in a row.
    Packed([Arc<[Vec<u32>]>; 2]),
    /// The same, one in a row.
    Padded([Arc<[Vec<u32>]>; 2]),
}

impl Data {
    /// The tokens of a text. Texts that are longer than a row of `length` are cut.
    pub(super) fn new(
        options: &TrainArgs,
        text: &Text,
        tokenizer: &Tokenizer,
        model: &dyn Model,
        (task, length): (TextTask, usize),
    ) -> Result<Self> {
        let vocabulary = model.dimensions().vocabulary;
        let Some(unit) = options.pack.or(options.bucket) else {
            let tokens = tokenizer.encode(&text.all)?;
            check_tokens(&tokens, vocabulary)?;
            return Ok(Self::Whole(Corpus::new(&tokens, HELD_OUT)?));
        };
        // Halves of rows of odd length leave a token free.
        let most = if matches!(task, TextTask::Continued { .. }) { length / 2 * 2 } else { length };
        let mut texts = Vec::new();
        for part in text.parts(unit) {
            let tokens = match task {
                TextTask::Next => tokenizer.encode_prompt(&part)?,
                TextTask::Masked { .. } | TextTask::Continued { .. } => tokenizer.encode_for_model(&part, None)?.ids,
            };
            check_tokens(&tokens, vocabulary)?;
            // A text of one token predicts none.
            texts.extend(tokens.chunks(most.max(1)).filter(|piece| piece.len() > 1).map(<[u32]>::to_vec));
        }
        let all: usize = texts.iter().map(Vec::len).sum();
        let (mut count, mut held_out) = (texts.len(), 0);
        while count > 1 && (held_out as f64) < HELD_OUT * all as f64 {
            count -= 1;
            held_out += texts[count].len();
        }
        let rest = texts.split_off(count);
        if texts.is_empty() {
            let message = "there is no text of two tokens or more in it: give a longer one, or another unit";
            return Err(Error::input("text", message));
        }
        let texts = [texts, rest].map(Arc::from);
        Ok(if options.pack.is_some() { Self::Packed(texts) } else { Self::Padded(texts) })
    }

    /// Tokens to train on, and held-out ones.
    pub(super) fn tokens(&self) -> [usize; 2] {
        match self {
            Self::Whole(corpus) => [corpus.train.len(), corpus.held_out.len()],
            Self::Packed(texts) | Self::Padded(texts) => [0, 1].map(|part| texts[part].iter().map(Vec::len).sum()),
        }
    }

    /// The number of texts, if they are packed.
    pub(super) fn texts(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Packed(texts) | Self::Padded(texts) => Some(texts.iter().map(|texts| texts.len()).sum()),
        }
    }

    /// The objectives of the sizes of batches, the largest first: about as many tokens in each.
    pub(super) fn objectives(&self, model: &Arc<dyn Model>, rows: usize, length: usize) -> Result<Vec<TaskObjective>> {
        match self {
            Self::Whole(_) => Ok(vec![TaskObjective::on_text(model.clone(), rows, length)?]),
            Self::Packed(_) => Ok(vec![TaskObjective::on_packed_text(model.clone(), rows, length)?]),
            Self::Padded(texts) => {
                // Halves of an odd length are of unequal length.
                let lengths: Vec<usize> =
                    texts.iter().flat_map(|texts| texts.iter()).map(|text| text.len().next_multiple_of(2)).collect();
                let lengths = batch_lengths(&lengths, length, SIZES);
                let rows = |size: usize| rows.saturating_mul(length).checked_div(size).unwrap_or(rows).max(1);
                let objective = |&size: &usize| TaskObjective::on_padded_text(model.clone(), rows(size), size);
                lengths.iter().rev().map(objective).collect()
            }
        }
    }

    /// Batches to train on, from a position of the run.
    pub(super) fn source(
        &self,
        objectives: &[TaskObjective],
        task: TextTask,
        (rows, length): (usize, usize),
        state: DataState,
    ) -> Result<Box<dyn BatchSource>> {
        Ok(match self {
            Self::Whole(corpus) => {
                let rows = Batches::resume(corpus.train.clone(), rows, length, state)?;
                Box::new(TextBatches { rows, task })
            }
            Self::Packed([texts, _]) => Box::new(PackedTexts::resume(texts.clone(), first(objectives)?, task, state)?),
            Self::Padded([texts, _]) => Box::new(PaddedTexts::resume(texts.clone(), objectives, task, state)?),
        })
    }

    pub(super) fn held_out(
        &self,
        objectives: &[TaskObjective],
        task: TextTask,
        (rows, length): (usize, usize),
    ) -> Result<Vec<HeldOut>> {
        match self {
            Self::Whole(corpus) => Ok(held_out_for(task, &in_order(&corpus.held_out, rows, length))),
            Self::Packed([_, texts]) => packed_held_out(texts.clone(), first(objectives)?, task),
            Self::Padded([_, texts]) => padded_held_out(texts.clone(), objectives, task),
        }
    }
}

/// The objective of the largest batches.
pub(super) fn first(objectives: &[TaskObjective]) -> Result<&TaskObjective> {
    objectives.first().ok_or_else(|| Error::input("text", "none fits a sequence: give a longer --context"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_text() {
        let text = Text { all: "a b\nc\n\n \nd\n\ne\nf\n".into(), ends: vec![4, 16] };
        assert_eq!(text.parts(Unit::Lines), ["a b", "c", "d", "e", "f"]);
        assert_eq!(text.parts(Unit::Paragraphs), ["a b\nc", "d", "e\nf"]);
        assert_eq!(text.parts(Unit::Files), ["a b\n", "c\n\n \nd\n\ne\nf\n"]);
    }
}
