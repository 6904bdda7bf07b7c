//! Answers that are parts of a text.

use super::{has_parts, row, softmax};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::Tokenizer;
use crate::models::{EncoderHead, Model};
use crate::program::Weights;
use crate::tasks::data::QuestionExample;
use crate::tasks::windows::windows;
use crate::tasks::{Reader, Reads, Row, Target};
use std::sync::Arc;

/// Ends and beginnings of a window that are tried with each other.
const TRIED: usize = 20;

/// An answer to a question.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answered {
    /// Its text, a part of the context; empty if there is no answer.
    pub text: String,
    /// Where it begins and ends in the context, in bytes.
    pub range: (usize, usize),
    /// The probability of its beginning times that of its end in its window.
    pub score: f64,
    /// The score of no answer, minus that of the best one, in logits: an answer is none if it is more than the threshold.
    pub none: f64,
}

/// An encoder that finds where an answer begins and ends, and its tokenizer.
///
/// A context longer than `longest` tokens, with the question, is read in windows that share a quarter. Of all spans of at most `longest_answer`
/// tokens the one with the largest sum of both logits is the answer. No answer has the sum of the first token's logits, in the window where it is
/// least (Devlin et al., arXiv 1810.04805, §4.3).
#[derive(Debug)]
pub struct Answerer {
    reader: Reader,
    tokenizer: Tokenizer,
    longest: usize,
    longest_answer: usize,
}

impl Answerer {
    /// Makes a model ready.
    ///
    /// # Errors
    /// [`Error::Input`] if the model finds no answers in texts.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Model>,
        weights: &Weights,
        tokenizer: &Tokenizer,
        longest: usize,
    ) -> Result<Self> {
        if model.encoder().map(crate::models::Encoder::head_kind) != Some(EncoderHead::QuestionAnswering) {
            return Err(Error::input("model", "it finds no answers in texts: train it for that (train --task answer)"));
        }
        let longest = longest.min(model.dimensions().max_position);
        let reader = Reader::new(gpu, model, weights, Reads::Classes)?;
        Ok(Self { reader, tokenizer: tokenizer.clone(), longest, longest_answer: 30 })
    }

    /// The same with answers of at most so many tokens.
    #[must_use]
    pub fn with_longest_answer(self, tokens: usize) -> Self {
        Self { longest_answer: tokens.max(1), ..self }
    }

    fn parts(&self) -> bool {
        has_parts(self.reader.model().as_ref())
    }

    /// The rows of a question: its windows. In those without the answer it is the first token, as where there is none.
    ///
    /// # Errors
    /// [`Error::Input`] if the question leaves no room for the context; those of the tokenizer.
    pub fn rows(&self, example: &QuestionExample) -> Result<Vec<Row>> {
        let encoding = self.tokenizer.encode_for_model(&example.question, Some(&example.context))?;
        let answer = example.answers.iter().find_map(|answer| Some((answer.start?, answer.text.len())));
        let answer = answer.filter(|_| !example.impossible).map(|(start, length)| (start, start + length));
        let windows = windows(&encoding, 1, self.longest, self.longest / 4)?;
        let of_window = |window: crate::tasks::windows::Window| {
            let offsets = &window.tokens.offsets;
            let holds =
                |at: &usize, byte: usize| offsets.get(*at).is_some_and(|(from, to)| *from <= byte && byte < *to);
            let span = answer.and_then(|(start, end)| {
                let first = window.inside.clone().find(|at| holds(at, start))?;
                let last = window.inside.clone().find(|at| holds(at, end.saturating_sub(1).max(start)))?;
                Some([first as i32, last as i32])
            });
            row(window.tokens, self.parts(), Target::Span(span.unwrap_or([0, 0])))
        };
        Ok(windows.into_iter().map(of_window).collect())
    }

    /// The answers to questions, each with its context.
    ///
    /// # Errors
    /// As [`Answerer::rows`], with the number of the question, and [`Reader::read_at`].
    pub fn answer(&mut self, questions: &[(&str, &str)], done: &mut dyn FnMut(usize)) -> Result<Vec<Answered>> {
        let mut parts = Vec::new();
        for (number, (question, context)) in questions.iter().enumerate() {
            let encoding = self.tokenizer.encode_for_model(question, Some(context))?;
            let found = windows(&encoding, 1, self.longest, self.longest / 4)
                .map_err(|e| Error::input(format!("question {number}"), e.to_string()))?;
            parts.extend(found.into_iter().map(|window| {
                let offsets = window.tokens.offsets.clone();
                (number, window.inside, offsets, row(window.tokens, self.parts(), Target::None))
            }));
        }
        let rows: Vec<(&Row, usize)> = parts.iter().map(|(.., row)| (row, 0)).collect();
        let logits = self.reader.read_at(&rows, &mut |read| done(read * questions.len() / rows.len().max(1)))?;
        let none = Answered { text: String::new(), range: (0, 0), score: 0.0, none: f64::INFINITY };
        let mut found = vec![(f64::NEG_INFINITY, none); questions.len()];
        let mut least = vec![f64::INFINITY; questions.len()];
        for ((number, inside, offsets, _), logits) in parts.iter().zip(&logits) {
            let side = |side: usize| -> Vec<f32> { logits.iter().skip(side).step_by(2).copied().collect() };
            let (starts, ends) = (side(0), side(1));
            let first = |of: &[f32]| of.first().copied().map_or(0.0, f64::from);
            least[*number] = least[*number].min(first(&starts) + first(&ends));
            let shares = [softmax(&starts), softmax(&ends)];
            let best = |of: &[f32]| {
                let mut places: Vec<usize> = inside.clone().filter(|at| *at < of.len()).collect();
                places.sort_by(|a, b| of[*b].total_cmp(&of[*a]).then(a.cmp(b)));
                places.truncate(TRIED);
                places
            };
            let ends_tried = best(&ends);
            for start in best(&starts) {
                for &end in ends_tried.iter().filter(|end| (start..start + self.longest_answer).contains(end)) {
                    let sum = f64::from(starts[start]) + f64::from(ends[end]);
                    if sum > found[*number].0
                        && let (Some((from, _)), Some((_, to))) = (offsets.get(start), offsets.get(end))
                    {
                        let (range, text) = trimmed(questions[*number].1, *from, *to);
                        let score = shares[0][start] * shares[1][end];
                        found[*number] = (sum, Answered { text, range, score, none: 0.0 });
                    }
                }
            }
        }
        let with_none = |((sum, answer), least): ((f64, Answered), f64)| {
            if sum.is_finite() { Answered { none: least - sum, ..answer } } else { answer }
        };
        Ok(found.into_iter().zip(least).map(with_none).collect())
    }
}

/// A part of a text without blanks around it.
fn trimmed(text: &str, from: usize, to: usize) -> ((usize, usize), String) {
    let part = text.get(from..to).unwrap_or_default();
    let front = part.len() - part.trim_start().len();
    let inner = part.trim();
    ((from + front, from + front + inner.len()), inner.to_owned())
}
