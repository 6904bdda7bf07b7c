//! The data of a training run: a text cut into windows, or texts packed into rows.

use crate::cli::args::{Pack, TrainArgs};
use crate::cli::read_texts;
use crate::error::{Error, Result};
use crate::io::Tokenizer;
use crate::models::Model;
use crate::tasks::{PackedTexts, TaskObjective, TextBatches, TextTask, held_out_for, packed_held_out};
use crate::train::{BatchSource, Batches, Corpus, DataState, HeldOut, check_tokens, in_order};
use std::sync::Arc;

/// The share of the text that is held out.
const HELD_OUT: f64 = 0.1;

/// The text of a run, and where its texts end.
pub(super) struct Text {
    pub(super) all: String,
    /// The end of each file.
    ends: Vec<usize>,
}

impl Text {
    pub(super) fn read(options: &TrainArgs) -> Result<Self> {
        let (mut all, mut ends) = (String::new(), Vec::new());
        if options.pack != Some(Pack::Files) {
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
    fn parts(&self, pack: Pack) -> Vec<String> {
        let parts: Vec<String> = match pack {
            Pack::Lines => self.all.lines().map(str::to_owned).collect(),
            Pack::Paragraphs => {
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
            Pack::Files => {
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
    /// Texts to train on, and to evaluate on.
    Packed([Arc<[Vec<u32>]>; 2]),
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
        let Some(pack) = options.pack else {
            let tokens = tokenizer.encode(&text.all)?;
            check_tokens(&tokens, vocabulary)?;
            return Ok(Self::Whole(Corpus::new(&tokens, HELD_OUT)?));
        };
        // Halves of rows of odd length leave a token free.
        let most = if matches!(task, TextTask::Continued { .. }) { length / 2 * 2 } else { length };
        let mut texts = Vec::new();
        for part in text.parts(pack) {
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
            let message = "--pack finds no text of two tokens or more in it: give a longer one, or another unit";
            return Err(Error::input("text", message));
        }
        Ok(Self::Packed([texts, rest].map(Arc::from)))
    }

    /// Tokens to train on, and held-out ones.
    pub(super) fn tokens(&self) -> [usize; 2] {
        match self {
            Self::Whole(corpus) => [corpus.train.len(), corpus.held_out.len()],
            Self::Packed(texts) => [0, 1].map(|part| texts[part].iter().map(Vec::len).sum()),
        }
    }

    /// The number of texts, if they are packed.
    pub(super) fn texts(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Packed(texts) => Some(texts.iter().map(|texts| texts.len()).sum()),
        }
    }

    pub(super) fn objective(&self, model: Arc<dyn Model>, rows: usize, length: usize) -> Result<TaskObjective> {
        match self {
            Self::Whole(_) => TaskObjective::on_text(model, rows, length),
            Self::Packed(_) => TaskObjective::on_packed_text(model, rows, length),
        }
    }

    /// Batches to train on, from a position of the run.
    pub(super) fn source(
        &self,
        objective: &TaskObjective,
        task: TextTask,
        (rows, length): (usize, usize),
        state: DataState,
    ) -> Result<Box<dyn BatchSource>> {
        Ok(match self {
            Self::Whole(corpus) => {
                let rows = Batches::resume(corpus.train.clone(), rows, length, state)?;
                Box::new(TextBatches { rows, task })
            }
            Self::Packed([texts, _]) => Box::new(PackedTexts::resume(texts.clone(), objective, task, state)?),
        })
    }

    pub(super) fn held_out(
        &self,
        objective: &TaskObjective,
        task: TextTask,
        (rows, length): (usize, usize),
    ) -> Result<Vec<HeldOut>> {
        match self {
            Self::Whole(corpus) => Ok(held_out_for(task, &in_order(&corpus.held_out, rows, length))),
            Self::Packed([_, texts]) => packed_held_out(texts.clone(), objective, task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_text() {
        let text = Text { all: "a b\nc\n\n \nd\n\ne\nf\n".into(), ends: vec![4, 18] };
        assert_eq!(text.parts(Pack::Lines), ["a b", "c", "d", "e", "f"]);
        assert_eq!(text.parts(Pack::Paragraphs), ["a b\nc", "d", "e\nf"]);
        assert_eq!(text.parts(Pack::Files), ["a b\n", "c\n\n \nd\n\ne\nf"]);
    }
}
