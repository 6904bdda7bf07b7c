//! Texts from texts.

use super::{TaskFile, row};
use crate::error::{Error, Result};
use crate::generate::{BeamOptions, BeamSearch, GenerateLimits, Generator, SamplingOptions};
use crate::gpu::Gpu;
use crate::io::Tokenizer;
use crate::models::{Decoder, Model};
use crate::program::Weights;
use crate::tasks::data::PairExample;
use crate::tasks::windows::truncated;
use crate::tasks::{Row, Target};
use derive_setters::Setters;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

/// How often answers of parts are answered again.
const ROUNDS: usize = 4;
/// The label of tokens that do not count.
const IGNORED: i32 = -100;

/// How a model that writes reads its texts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriterText<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What is put around texts.
    pub file: &'a TaskFile,
    /// The most tokens of a text.
    pub longest: usize,
}

impl WriterText<'_> {
    /// The tokens of a text that is to be answered. A text that is too long loses its end; for a decoder alone, its beginning would be the prefix's,
    /// so that it loses the end in front of the separator.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn source(&self, model: &dyn Model, text: &str) -> Result<Vec<u32>> {
        let text = format!("{}{text}", self.file.prefix);
        if model.encoder().is_some() {
            let encoding = self.tokenizer.encode_for_model(&text, None)?;
            return Ok(row(truncated(&encoding, self.longest), false, Target::None).ids);
        }
        let separator = self.tokenizer.encode(self.separator())?;
        let mut ids = self.tokenizer.encode_prompt(&text)?;
        ids.truncate(self.longest.saturating_sub(separator.len()));
        ids.extend(separator);
        Ok(ids)
    }

    fn separator(&self) -> &str {
        if self.file.separator.is_empty() { "\n" } else { &self.file.separator }
    }

    /// The tokens of an answer, with the one that ends it.
    ///
    /// # Errors
    /// [`Error::Input`] if no token is known that ends answers; those of the tokenizer.
    pub fn target(&self, model: &dyn Model, text: &str) -> Result<Vec<u32>> {
        let own = model.config()["eos_token_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let end = own.or(self.tokenizer.eos()).ok_or_else(|| {
            let message = "it has no token that ends a text: name one as eos_token in tokenizer_config.json, or train a tokenizer (bpe:SIZE)";
            Error::input("tokenizer", message)
        })?;
        let mut ids = match model.encoder() {
            Some(_) => self.tokenizer.answers().encode_for_model(text, None)?.ids,
            None => self.tokenizer.encode(text)?,
        };
        ids.truncate(self.longest.saturating_sub(1));
        if ids.last() != Some(&end) {
            ids.push(end);
        }
        Ok(ids)
    }
}

/// The row of a text and its answer. Behind an encoder a decoder learns the answer; a decoder alone learns it behind the text, of which it learns
/// nothing.
///
/// # Errors
/// [`Error::Input`] if the answer is missing, or the model writes nothing; those of the tokenizer.
pub fn pair_row(texts: &WriterText<'_>, model: &dyn Model, example: &PairExample) -> Result<Row> {
    let missing = || Error::input("target", "is missing: there is nothing to learn");
    let target = texts.target(model, example.target.as_deref().ok_or_else(missing)?)?;
    let source = texts.source(model, &example.source)?;
    let decoder = model.decoder().ok_or_else(|| Error::input("model", "it has no decoder, and writes nothing"))?;
    if model.encoder().is_some() {
        let start = match decoder.starts_with_last() {
            true => target.last().copied(),
            false => Decoder::start_token(decoder),
        };
        let missing = || Error::input("model", "it has no decoder_start_token_id, the first token of answers");
        let target = Target::Answer { start: start.ok_or_else(missing)?, ids: target };
        return Ok(Row { ids: source, types: Vec::new(), target });
    }
    let most = model.dimensions().max_position;
    let mut ids = source;
    let read = ids.len();
    ids.extend(target);
    ids.truncate(most);
    // The label of a token is the one behind it.
    let label = |at: usize| if at + 1 < read { IGNORED } else { ids.get(at + 1).map_or(IGNORED, |&id| id as i32) };
    let labels = (0..ids.len()).map(label).collect();
    Ok(Row { ids, types: Vec::new(), target: Target::Tokens(labels) })
}

/// A model that makes texts from texts, on one device.
pub struct Writer {
    engine: Engine,
    model: Arc<dyn Decoder>,
    tokenizer: Tokenizer,
    file: TaskFile,
    longest: usize,
    options: SamplingOptions,
}

/// How answers are found.
enum Engine {
    One(Generator),
    Beams(BeamSearch),
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("model", &self.model).field("file", &self.file).finish_non_exhaustive()
    }
}

/// The sizes of a [`Writer`].
#[derive(Clone, Copy, Debug, PartialEq, Setters)]
#[setters(prefix = "with_", strip_option)]
#[non_exhaustive]
pub struct WriterOptions {
    /// The most tokens of a text.
    pub longest: usize,
    /// The most tokens of an answer.
    pub longest_answer: usize,
    /// Beams; 1 is greedy decoding.
    pub beams: usize,
    /// What longer answers are favoured by, where there are beams: [`BeamOptions::length_penalty`].
    pub length_penalty: f64,
    /// Texts at a time.
    pub batch: usize,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { longest: 512, longest_answer: 128, beams: 1, length_penalty: 1.0, batch: 16 }
    }
}

impl Writer {
    /// Makes a model ready. `options` say what ends an answer and which tokens may come; answers are not drawn.
    ///
    /// # Errors
    /// [`Error::Input`] if the model has no room for text and answer; those of [`Generator::new`].
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Decoder>,
        weights: &Weights,
        (tokenizer, file): (&Tokenizer, &TaskFile),
        sizes: WriterOptions,
        options: SamplingOptions,
    ) -> Result<Self> {
        let room = model.dimensions().max_position;
        let alone = model.encoder().is_none();
        // Where text and answer share the positions, a text has half of them at least.
        let most =
            if alone { room - room.saturating_sub(1).min(sizes.longest).min(room / 2) } else { room.saturating_sub(1) };
        let answer = sizes.longest_answer.min(most).max(1);
        let longest = if alone { sizes.longest.min(room.saturating_sub(answer)) } else { sizes.longest.min(room) };
        if longest == 0 {
            let message =
                format!("answers of {answer} tokens leave no room for a text in the model's {room} positions");
            return Err(Error::input("max-tokens", message));
        }
        let max_tokens = if alone { longest + answer } else { longest.max(answer + 1) }.clamp(2, room.max(2));
        let limits = GenerateLimits { batch: sizes.batch.max(1), max_tokens };
        let engine = match sizes.beams {
            0 | 1 => Engine::One(Generator::new(gpu, model.clone(), weights, limits)?),
            beams => {
                let limits = GenerateLimits { batch: (limits.batch / beams).max(1), ..limits };
                let beams = BeamOptions { beams, length_penalty: sizes.length_penalty, ..BeamOptions::default() };
                Engine::Beams(BeamSearch::new(gpu, model.clone(), weights, limits, beams)?)
            }
        };
        let options = SamplingOptions { max_new_tokens: answer, temperature: 0.0, ..options };
        Ok(Self { engine, model, tokenizer: tokenizer.clone(), file: file.clone(), longest, options })
    }

    /// The answers to texts; `done` is told how many there are.
    ///
    /// # Errors
    /// Those of the tokenizer, and of [`Generator::generate`].
    pub fn write(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<String>> {
        let made = WriterText { tokenizer: &self.tokenizer, file: &self.file, longest: self.longest };
        let sources: Vec<Vec<u32>> =
            texts.iter().map(|text| made.source(self.model.as_ref(), text)).collect::<Result<_>>()?;
        // An empty text is one of its special tokens, or of none.
        let mut order: Vec<usize> = (0..texts.len()).filter(|&number| !sources[number].is_empty()).collect();
        order.sort_by_key(|&number| std::cmp::Reverse(sources[number].len()));
        let mut answers = vec![String::new(); texts.len()];
        let mut count = 0;
        let batch = match &self.engine {
            Engine::One(generator) => generator.limits().batch,
            Engine::Beams(search) => search.limits().batch,
        };
        for numbers in order.chunks(batch.max(1)) {
            let prompts: Vec<Vec<u32>> = numbers.iter().map(|&number| sources[number].clone()).collect();
            let tokens: Vec<Vec<u32>> = match &mut self.engine {
                Engine::One(generator) => generator
                    .generate(&prompts, &self.options, |_| ControlFlow::Continue(()))?
                    .into_iter()
                    .map(|answer| answer.tokens)
                    .collect(),
                Engine::Beams(search) => search
                    .search(&prompts, &self.options, |_| ControlFlow::Continue(()))?
                    .into_iter()
                    .map(|found| found.into_iter().next().map(|best| best.answer.tokens).unwrap_or_default())
                    .collect(),
            };
            for (&number, tokens) in numbers.iter().zip(&tokens) {
                self.tokenizer.decode(tokens)?.trim().clone_into(&mut answers[number]);
            }
            count += numbers.len();
            done(count);
        }
        Ok(answers)
    }

    /// As [`Writer::write`], but texts longer than the model reads are answered by parts, which end with a sentence where they can; the answers
    /// of a text's parts are joined, and answered again while they are too long themselves.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn by_parts(&mut self, texts: &[&str], done: &mut dyn FnMut(usize)) -> Result<Vec<String>> {
        let mut current: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        for _ in 0..ROUNDS {
            let mut parts = Vec::new();
            for (number, text) in current.iter().enumerate() {
                parts.extend(self.parts(text)?.into_iter().map(|part| (number, part)));
            }
            let whole = parts.len() == current.len();
            let answers =
                self.write(&parts.iter().map(|(_, part)| part.as_str()).collect::<Vec<_>>(), &mut |read| {
                    if whole {
                        done(read);
                    }
                })?;
            let long: Vec<bool> =
                (0..texts.len()).map(|number| parts.iter().filter(|(of, _)| *of == number).count() > 1).collect();
            let mut joined = vec![String::new(); texts.len()];
            for ((number, _), answer) in parts.iter().zip(answers) {
                let text: &mut String = &mut joined[*number];
                if !text.is_empty() && !answer.is_empty() {
                    text.push(' ');
                }
                text.push_str(&answer);
            }
            let shorter = |number: usize| joined[number].len() < current[number].len();
            let again =
                (0..texts.len()).any(|number| long[number] && shorter(number) && self.too_long(&joined[number]));
            current = joined;
            if !again {
                break;
            }
        }
        Ok(current)
    }

    fn too_long(&self, text: &str) -> bool {
        self.parts(text).is_ok_and(|parts| parts.len() > 1)
    }

    /// A text in parts that the model reads.
    fn parts(&self, text: &str) -> Result<Vec<String>> {
        let around = self.tokenizer.encode_for_model(&self.file.prefix, None)?.ids.len();
        let room = self.longest.saturating_sub(around).max(1);
        let (mut parts, mut part, mut tokens) = (Vec::new(), String::new(), 0);
        for sentence in sentences(text) {
            let count = self.tokenizer.encode(sentence)?.len();
            if tokens + count > room && !part.trim().is_empty() {
                parts.push(std::mem::take(&mut part));
                tokens = 0;
            }
            part.push_str(sentence);
            tokens += count;
        }
        if !part.trim().is_empty() || parts.is_empty() {
            parts.push(part);
        }
        Ok(parts)
    }
}

/// A text cut behind its sentences, and within long ones behind words.
fn sentences(text: &str) -> Vec<&str> {
    const LONG: usize = 400;
    let (mut found, mut first) = (Vec::new(), 0);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let ends = matches!(before, '.' | '!' | '?' | '…' | '。' | '\n') && (c.is_whitespace() || before == '。');
        if ends || c.is_whitespace() && at - first > LONG {
            found.extend(text.get(first..at));
            first = at;
        }
        before = c;
    }
    found.extend(text.get(first..).filter(|rest| !rest.is_empty()));
    found
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn a_text_is_cut_behind_sentences_and_nothing_is_lost() {
        let text = "It is a truth. Is it? \u{1f600}No!\n\nYes";
        let found = sentences(text);
        assert_eq!(found, ["It is a truth.", " Is it?", " \u{1f600}No!", "\n", "\nYes"]);
        let long = "word ".repeat(300);
        let found = sentences(&long);
        assert_eq!(found.concat(), long);
        assert!(found.len() > 2 && found.iter().all(|part| part.len() < 420));
        assert!(sentences("").is_empty());
    }
}
