//! Beam search.

use super::feed::{Texts, feed_edits};
use super::generator::{GenerateLimits, Generator};
use super::hypotheses::{BeamOptions, Ended, Hypotheses};
use super::pick::{Behind, TokenPick};
use super::row::{damaged, nothing_allowed};
use super::sampling::SamplingOptions;
use super::session::{Answer, Finish, check_prompt};
use super::text::AnswerText;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::TextOf;
use crate::models::Decoder;
use crate::ops::{BANNED_LOGIT, LogitEdit, MAX_BEAMS};
use crate::program::Weights;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::ops::ControlFlow;
use std::sync::Arc;

/// An answer of beam search.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ScoredAnswer {
    /// The answer.
    pub answer: Answer,
    /// The sum of the logarithms of the probabilities of its tokens, an end token included, over their number to the power of
    /// [`BeamOptions::length_penalty`].
    pub score: f64,
}

/// A decoder prepared for beam search: each prompt has several beams, of which the likeliest continuations of all go on.
///
/// The beams of a prompt are rows of one batch. A prompt is read once for all of its beams, by an encoder or by the decoder; caches move
/// from beam to beam on the GPU ([`crate::ops::reorder_beams`]), and a run gives back the likeliest few tokens of a row. Beams of a batch are those of
/// its prompts alone. The rules are those of transformers' `num_beams`, and with [`BeamOptions::drawn`] those of `do_sample` with them.
#[derive(Debug)]
pub struct BeamSearch {
    generator: Generator,
    options: BeamOptions,
}

impl BeamSearch {
    /// Prepares a decoder for `limits.batch` prompts at a time, which take `beams` rows each.
    ///
    /// # Errors
    /// As [`Generator::new`]; [`Error::Input`] if an option is out of range.
    pub fn new(
        gpu: &Gpu,
        model: Arc<dyn Decoder>,
        weights: &Weights,
        limits: GenerateLimits,
        options: BeamOptions,
    ) -> Result<Self> {
        let BeamOptions { beams, length_penalty, answers, .. } = options;
        if !(1..=MAX_BEAMS).contains(&beams) {
            return Err(Error::input("beams", format!("there are {beams}, but 1 to {MAX_BEAMS} are possible")));
        }
        if !(1..=beams).contains(&answers) {
            let message = format!("there are {answers}, but {beams} beams give 1 to {beams}");
            return Err(Error::input("answers", message));
        }
        if !length_penalty.is_finite() {
            return Err(Error::input("length_penalty", format!("it is {length_penalty}, but must be finite")));
        }
        let batch = limits.batch.saturating_mul(beams);
        let mut generator = Generator::new(gpu, model, weights, GenerateLimits { batch, ..limits })?;
        generator.beams = beams;
        Ok(Self { generator, options })
    }

    /// Sets the decoding of tokens to text, for stop texts and [`Answer::text`].
    #[must_use]
    pub fn with_text(mut self, text: TextOf) -> Self {
        self.generator.text = Some(text);
        self
    }

    /// The limits; the batch counts prompts.
    #[must_use]
    pub fn limits(&self) -> GenerateLimits {
        let limits = self.generator.limits;
        GenerateLimits { batch: limits.batch / self.generator.beams.max(1), ..limits }
    }

    /// Prepares the programs for prompts of up to `longest` tokens now.
    ///
    /// # Errors
    /// Those of the model; [`Error::OutOfMemory`].
    pub fn prepare(&mut self, longest: usize, options: &SamplingOptions) -> Result<()> {
        let pick = self.pick(options);
        self.generator.prepare_picking(longest, pick)?;
        if self.options.beams > 1 {
            self.generator.reorder(pick)?;
        }
        Ok(())
    }

    /// The best answers to each of any number of prompts, the best first. Of `options`, temperature, top-k, top-p, min-p and seed count only with
    /// [`BeamOptions::drawn`].
    /// `watch` gets the number of tokens of the beams after each step, and can break off.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn search(
        &mut self,
        prompts: &[Vec<u32>],
        options: &SamplingOptions,
        mut watch: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<ScoredAnswer>>> {
        options.validate()?;
        if self.options.drawn {
            options.validate_for_drawn_beams()?;
        }
        if !options.stop.is_empty() && self.generator.text.is_none() {
            return Err(Error::input("stop", "stop texts need a search that decodes text (with_text)"));
        }
        let batch = self.generator.limits.batch / self.options.beams;
        let mut answers = Vec::with_capacity(prompts.len());
        for (chunk, prompts) in prompts.chunks(batch).enumerate() {
            for (index, prompt) in prompts.iter().enumerate() {
                check_prompt(&self.generator, prompt, chunk * batch + index)?;
            }
            answers.extend(self.search_batch(prompts, chunk * batch, options, &mut watch)?);
        }
        Ok(answers)
    }

    fn pick(&self, options: &SamplingOptions) -> TokenPick {
        TokenPick::of_beams(self.options, options, self.generator.limits, self.generator.model.as_ref())
    }

    fn search_batch(
        &mut self,
        prompts: &[Vec<u32>],
        first: usize,
        options: &SamplingOptions,
        watch: &mut impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<ScoredAnswer>>> {
        let (pick, start) = (self.pick(options), self.generator.start());
        let width = Hypotheses::width(self.options.beams, options);
        let begins = |prompt: &Vec<u32>| start.map_or_else(|| prompt.clone(), |start| vec![start]);
        let random = |index: usize| {
            let mut random = ChaCha8Rng::seed_from_u64(options.seed);
            random.set_stream((first + index) as u64);
            self.options.drawn.then_some(random)
        };
        let begun = |(index, prompt)| Hypotheses::new(&begins(prompt), self.options, random(index));
        let mut all: Vec<Hypotheses> = prompts.iter().enumerate().map(begun).collect();
        // All prompts of a batch take as many steps as the longest; each answer has its own room.
        let room = |prompt: &Vec<u32>| self.generator.limits.max_tokens - begins(prompt).len();
        let longest: Vec<usize> = prompts.iter().map(|prompt| options.max_new_tokens.min(room(prompt))).collect();
        for (one, _) in all.iter_mut().zip(&longest).filter(|(_, longest)| **longest == 0) {
            one.stop();
        }
        for step in 0.. {
            if all.iter().all(Hypotheses::done) {
                break;
            }
            let likeliest = self.step(step, prompts, &all, options, pick)?;
            for (index, one) in all.iter_mut().enumerate().filter(|(_, one)| !one.done()) {
                let prompt = begins(&prompts[index]).len();
                let rows = &likeliest[index * self.options.beams..][..self.options.beams];
                let ends = |tokens: &[u32], token| ends(&self.generator, options, tokens, prompt, token);
                one.advance(rows, width, longest[index], ends)?;
            }
            if watch(step + 1).is_break() {
                break;
            }
        }
        let answers = all.into_iter().zip(prompts).zip(longest).map(|((one, prompt), longest)| {
            let prompt = begins(prompt);
            let ended = one.answers().into_iter();
            ended.map(|ended| self.answer(ended, &prompt, options, longest)).collect::<Result<Vec<_>>>()
        });
        answers.collect()
    }

    /// Runs the step that reads the last token of each beam: the likeliest tokens of each row.
    fn step(
        &mut self,
        step: usize,
        prompts: &[Vec<u32>],
        all: &[Hypotheses],
        options: &SamplingOptions,
        pick: TokenPick,
    ) -> Result<Vec<Vec<(u32, f64)>>> {
        let generator = &mut self.generator;
        let (rows, vocabulary) = (generator.limits.batch, generator.model.dimensions().vocabulary);
        let encodes = generator.start().is_some();
        let sources = if encodes { prompts.iter().map(|prompt| &prompt[..]).collect() } else { Vec::new() };
        let rows_now = all.iter().flat_map(Hypotheses::rows).collect();
        let texts = Texts { sources, rows: rows_now, drafts: Vec::new() };
        let beams = self.options.beams;
        // The first step reads one row for all beams of a prompt.
        let (rows, stride) = if step == 0 { (rows / beams, beams) } else { (rows, 1) };
        let rules = texts.rows.iter().enumerate().step_by(stride).map(|(index, history)| {
            options.edits_of(&Behind { history, made: step, prompt: &prompts[index / beams] }, vocabulary)
        });
        let (edits, forced): (Vec<Vec<LogitEdit>>, Vec<Option<Vec<u32>>>) = rules.unzip();
        if step == 0 && encodes {
            generator.feed_encoder(&texts)?.run()?;
        }
        if step > 0 && self.options.beams > 1 {
            let mut parents: Vec<u32> = all.iter().flat_map(Hypotheses::parents).map(|parent| parent as u32).collect();
            let mut used: Vec<u32> = texts.rows.iter().map(|row| row.len() as u32 - 1).collect();
            parents.resize(rows, 0);
            used.resize(rows, 0);
            let program = generator.reorder(pick)?;
            program.write("parents", bytemuck::cast_slice(&parents))?;
            program.write("used", bytemuck::cast_slice(&used))?;
            program.run()?;
        }
        let mut grown = all.iter().filter(|one| !one.done()).flat_map(Hypotheses::rows);
        let program = match step {
            0 => generator.feed_prefill(pick, beams, &texts)?,
            _ if grown.any(|row| generator.outgrown(row.len())) => generator.feed_prefill(pick, 1, &texts)?,
            _ => generator.feed_decode(pick, &texts)?,
        };
        feed_edits(program, pick, rows, &edits)?;
        let mut read = Vec::new();
        for readback in program.run_reading(&["candidates", "log_probs"])? {
            read.push(readback.wait()?);
        }
        let [candidates, log_probs] = &read[..] else {
            return Err(Error::Graph("the run returned no candidates".into()));
        };
        let candidates: Vec<u32> = bytemuck::pod_collect_to_vec(candidates);
        let log_probs: Vec<f32> = bytemuck::pod_collect_to_vec(log_probs);
        let of_row = candidates.len() / rows.max(1);
        let mut likeliest = Vec::with_capacity(forced.len());
        for (row, forced) in forced.into_iter().enumerate() {
            let range = row * of_row..(row + 1) * of_row;
            if log_probs[range.clone()].iter().any(|p| !p.is_finite()) {
                return Err(damaged());
            }
            let found = candidates[range.clone()].iter().zip(&log_probs[range]);
            let allowed = found.filter(|(_, p)| **p > BANNED_LOGIT);
            let tokens: Vec<(u32, f64)> = match forced {
                // What is forced comes with certainty.
                Some(forced) => forced
                    .into_iter()
                    .filter(|token| (*token as usize) < vocabulary)
                    .map(|token| (token, 0.0))
                    .collect(),
                None => {
                    let found = allowed.map(|(at, p)| (at % vocabulary as u32, f64::from(*p))).collect();
                    if self.options.drawn { options.warped(found, options.least()) } else { found }
                }
            };
            if tokens.is_empty() {
                return Err(nothing_allowed());
            }
            likeliest.push(tokens);
            // The other beams of a prompt have nothing to add to its first step.
            likeliest.resize(likeliest.len() + stride - 1, Vec::new());
        }
        Ok(likeliest)
    }

    fn answer(&self, ended: Ended, prompt: &[u32], options: &SamplingOptions, longest: usize) -> Result<ScoredAnswer> {
        let tokens = ended.tokens[prompt.len()..].to_vec();
        let last = tokens.last().copied();
        let mut finish = match last {
            Some(token) if options.stop_tokens.contains(&token) => Finish::Stop,
            Some(token) if options.end.contains(&token) => Finish::End,
            _ if tokens.len() < longest => Finish::BrokenOff,
            _ if longest < options.max_new_tokens => Finish::Context,
            _ => Finish::Length,
        };
        let ends = matches!(finish, Finish::End | Finish::Stop);
        let mut text = None;
        if let Some(mut whole) = text_behind(&self.generator, prompt)? {
            let mut stopped = false;
            for token in &tokens[..tokens.len() - usize::from(ends)] {
                stopped = stopped || whole.push(*token, &options.stop)?;
            }
            if stopped {
                finish = Finish::Stop;
            } else {
                whole.finish(&options.stop)?;
            }
            text = Some(whole.into_whole());
        }
        Ok(ScoredAnswer { answer: Answer { tokens, text, finish }, score: ended.score })
    }
}

/// The text behind a prompt, if the generator decodes text. The answer of an encoder-decoder model does not continue its prompt.
fn text_behind(generator: &Generator, prompt: &[u32]) -> Result<Option<AnswerText>> {
    let before = if generator.start().is_some() { &[] } else { prompt };
    generator.text.clone().map(|text_of| AnswerText::after(text_of, before)).transpose()
}

/// Whether an answer ends with a token behind such a text.
fn ends(generator: &Generator, options: &SamplingOptions, tokens: &[u32], prompt: usize, token: u32) -> Result<bool> {
    if options.end.contains(&token) || options.stop_tokens.contains(&token) {
        return Ok(true);
    }
    if options.stop.is_empty() {
        return Ok(false);
    }
    let Some(mut text) = text_behind(generator, &tokens[..prompt])? else { return Ok(false) };
    for token in tokens[prompt..].iter().chain([&token]) {
        if text.push(*token, &options.stop)? {
            return Ok(true);
        }
    }
    Ok(false)
}
